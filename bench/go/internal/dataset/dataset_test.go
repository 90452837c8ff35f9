package dataset

import "testing"

// replayed is the endpoints of each service after so many changes, made one by one.
func replayed(s Set, changes int) [][]uint32 {
	seqs := make([][]uint32, s.Services)
	for seq := range s.FirstChange() + uint32(changes) {
		service, e := s.At(seq)
		if e.Step == 0 {
			seqs[service] = append(seqs[service], seq)
		} else {
			seqs[service][e.VM] = seq
		}
	}
	return seqs
}

func TestWhatFollowsFromAStepIsWhatChangesMake(t *testing.T) {
	for _, set := range []Set{{1, 1}, {1, 5}, {4, 1}, {3, 5}, {5, 3}} {
		for changes := range 3 * set.Services * set.Endpoints {
			for service, seqs := range replayed(set, changes) {
				step := set.StepBefore(service, set.FirstChange()+uint32(changes))
				for vm, expected := range seqs {
					if seq := set.Seq(service, set.Latest(vm, step)); seq != expected {
						t.Fatalf("%v, change %d: VM %d of service %d has %d and not %d",
							set, changes, vm, service, seq, expected)
					}
				}
			}
		}
	}
}

func TestChangesGoAroundServicesAndThenEndpoints(t *testing.T) {
	set := Set{Services: 3, Endpoints: 2}
	for change, expected := range []struct{ service, vm int }{
		{0, 0}, {1, 0}, {2, 0}, {0, 1}, {1, 1}, {2, 1}, {0, 0},
	} {
		service, e := set.At(set.FirstChange() + uint32(change))
		if service != expected.service || e.VM != expected.vm {
			t.Errorf("change %d is of VM %d of service %d", change, e.VM, service)
		}
	}
}

func TestAnAddressTellsItsSeq(t *testing.T) {
	for _, seq := range []uint32{0, 255, 256, 65_536, SeqMax - 1} {
		if read, err := ParseAddress(Address(seq)); read != seq || err != nil {
			t.Errorf("%d is %s, which is %d (%v)", seq, Address(seq), read, err)
		}
	}
	for _, other := range []string{"11.0.0.0", "fd00::1", "::ffff:10.0.0.1", "web", ""} {
		if _, err := ParseAddress(other); err == nil {
			t.Errorf("%q is an address of the data set", other)
		}
	}
}
