// Package serving runs the real server for tests, on manifests that they write.
package serving

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Server is a running `vmsvc-grpc serve`.
type Server struct {
	// Address is where it serves gRPC.
	Address string

	process *exec.Cmd
	said    *said
	stop    sync.Once
}

// Free is an address of loopback on which nobody listens now, for a server that is to be restarted.
func Free(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

var serves = regexp.MustCompile(`(?m)^serving `)
var listens = regexp.MustCompile(`\bgRPC\s+on (\S+:\d+)`)

// Start has the server serve a directory of manifests, on the address given or on a free one, until it
// is stopped, or the test ends.
func Start(t testing.TB, manifests, address string, arguments ...string) *Server {
	t.Helper()
	if address == "" {
		address = "127.0.0.1:0"
	}
	command := []string{
		"-m", "vmsvc_grpc", "serve", "--manifests", manifests, "--allow-loopback",
		"--listen", address, "--http-listen", "127.0.0.1:0", "--drain-s", "0.2",
	}
	s := &Server{process: exec.Command(python(t), append(command, arguments...)...), said: &said{}}
	s.process.Dir = root()
	s.process.Stdout, s.process.Stderr = s.said, s.said
	// Settings of the caller's own shell would change what a test sees.
	for _, each := range append(os.Environ(), "PYTHONUNBUFFERED=1") {
		if !strings.HasPrefix(each, "VMSVC_") {
			s.process.Env = append(s.process.Env, each)
		}
	}
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop(t) })
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		text := s.said.text()
		if found := listens.FindStringSubmatch(text); found != nil && serves.MatchString(text) {
			s.Address = found[1]
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not serve. It said:\n%s", text)
		}
	}
}

// Stop ends it by SIGTERM, and waits until it has ended.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	s.stop.Do(func() {
		_ = s.process.Process.Signal(syscall.SIGTERM)
		if err := s.process.Wait(); err != nil {
			t.Errorf("it ended with %v. It said:\n%s", err, s.said.text())
		}
	})
}

// python is the interpreter that has the server: that of `make`, unless the test's caller names one.
func python(t testing.TB) string {
	t.Helper()
	if named := os.Getenv("VMSVC_TEST_PYTHON"); named != "" {
		return named
	}
	made := filepath.Join(root(), ".venv", "bin", "python")
	if _, err := os.Stat(made); err != nil {
		t.Fatalf("tests run the server, which `make .venv` installs: %v", err)
	}
	return made
}

func root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..", "..")
}

// said is what the server has printed so far.
type said struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buffer.Write(p)
}

func (s *said) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buffer.String()
}

// Service is the manifest of shop/web, whose selector is app: web. Each port is "name:port:target".
func Service(ports ...string) string {
	var listed strings.Builder
	for _, each := range ports {
		parts := strings.Split(each, ":")
		fmt.Fprintf(&listed, "  - {name: %s, port: %s, targetPort: %s}\n", parts[0], parts[1], parts[2])
	}
	return `apiVersion: vmoperator.vmware.com/v1alpha6
kind: VirtualMachineService
metadata: {namespace: shop, name: web}
spec:
  type: ClusterIP
  selector: {app: web}
  ipFamilies: [IPv4, IPv6]
  ipFamilyPolicy: PreferDualStack
  ports:
` + listed.String()
}

// VM is the manifest of a VM of shop/web.
type VM struct {
	Name     string
	IPv4     string
	IPv6     string
	Zone     string
	NotReady bool
}

// Manifest is it as YAML.
func (vm VM) Manifest() string {
	ready := "True"
	if vm.NotReady {
		ready = "False"
	}
	return fmt.Sprintf(`apiVersion: vmoperator.vmware.com/v1alpha6
kind: VirtualMachine
metadata:
  namespace: shop
  name: %[1]s
  uid: uid-%[1]s
  labels: {app: web, topology.kubernetes.io/zone: %[2]q}
spec:
  readinessProbe: {tcpSocket: {port: 80}}
status:
  network: {primaryIP4: %[3]q, primaryIP6: %[4]q}
  conditions: [{type: Ready, status: "%[5]s"}]
`, vm.Name, vm.Zone, vm.IPv4, vm.IPv6, ready)
}

// Write puts a manifest into a directory, whole at once.
func Write(t testing.TB, directory, name, manifest string) {
	t.Helper()
	written := filepath.Join(directory, "."+name)
	if err := os.WriteFile(written, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(written, filepath.Join(directory, name+".yaml")); err != nil {
		t.Fatal(err)
	}
}

// Remove takes a manifest away.
func Remove(t testing.TB, directory, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(directory, name+".yaml")); err != nil {
		t.Fatal(err)
	}
}
