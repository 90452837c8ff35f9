package wire

import (
	"reflect"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

func TestFieldsAreGivenInTheirOrderAndThoseOfFixedSizeArePassedOver(t *testing.T) {
	message := AppendString(nil, 3, "text")
	message = protowire.AppendFixed32(protowire.AppendTag(message, 7, protowire.Fixed32Type), 1)
	message = AppendMessage(AppendVarint(message, 1, 300), 2, nil)
	var seen []protowire.Number
	err := Each(message, func(number protowire.Number, _ Value) error {
		seen = append(seen, number)
		return nil
	})
	if err != nil || !reflect.DeepEqual(seen, []protowire.Number{3, 1, 2}) {
		t.Errorf("fields %v (%v)", seen, err)
	}
}

func TestWhatIsEmptyIsNotWritten(t *testing.T) {
	if message := AppendVarint(AppendString(nil, 1, ""), 2, 0); len(message) > 0 {
		t.Errorf("%v", message)
	}
}

func TestAMessageThatEndsEarlyIsAnError(t *testing.T) {
	whole := AppendString(AppendVarint(nil, 1, 300), 2, "text")
	for end := 1; end < len(whole); end++ {
		err := Each(whole[:end], func(protowire.Number, Value) error { return nil })
		if err == nil && end != 3 { // After the first field it is a message too.
			t.Errorf("%v is well-formed", whole[:end])
		}
	}
}
