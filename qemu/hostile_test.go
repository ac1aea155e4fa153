package qemu

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// victim is what a QEMU that its guest has taken over would like to have.
type victim struct {
	PID      int    // of who started QEMU, and has the test's user
	Home     string // with secrets
	Dir      string // that the user may write to
	API      string // path of a socket
	Abstract string // name of a socket
	TCP, UDP string // addresses of sockets
	Kernel   int    // descriptor, to be only read
	Image    int    // descriptor of a drive, to be only read
	Layer    int    // descriptor of a layer below the disk, to be only read
	Disk     int    // descriptor, to be written to
}

// attempt is something that a hostile QEMU tries.
type attempt struct {
	name    string
	try     func(victim) error
	root    bool // only root could do this if it were not confined
	network bool // a QEMU with this machine's network may
	allowed bool // every QEMU may
}

var attempts = []attempt{
	{name: "write to its disk", allowed: true, try: func(v victim) error { _, err := unix.Pwrite(v.Disk, []byte("x"), 1<<20); return err }},

	{name: "read a key", try: func(v victim) error { return read(v.Home + "/.ssh/id_ed25519") }},
	{name: "list the home", try: func(v victim) error { _, err := os.ReadDir(v.Home); return err }},
	{name: "write to .bashrc", try: func(v victim) error { return write(v.Home + "/.bashrc") }},
	{name: "change the mode of .bashrc", try: func(v victim) error { return os.Chmod(v.Home+"/.bashrc", 0o600) }},
	{name: "read /etc/passwd", try: func(victim) error { return read("/etc/passwd") }},
	{name: "make a file", try: func(v victim) error { return write(v.Dir + "/made") }},
	{name: "make a file in /tmp", try: func(v victim) error {
		name := fmt.Sprintf("/tmp/hostile%d", v.PID)
		defer os.Remove(name)
		return write(name)
	}},
	{name: "see the environment", try: func(victim) error {
		if os.Getenv("HOSTILE_SECRET") == "" {
			return errors.New("the secret is not there")
		}
		return nil
	}},

	{name: "write to the kernel", try: func(v victim) error { return rewrite(v.Kernel) }},
	{name: "write to the image", try: func(v victim) error { return rewrite(v.Image) }},
	{name: "write to the layer below", try: func(v victim) error { return rewrite(v.Layer) }},
	{name: "change the mode of the image", try: func(v victim) error { return unix.Fchmod(v.Image, 0o666) }},
	{name: "change the owner of the image", try: func(v victim) error { return unix.Fchown(v.Image, os.Getuid(), os.Getgid()) }},

	{name: "see its supervisor", try: func(v victim) error { return read(fmt.Sprintf("/proc/%d/environ", v.PID)) }},
	{name: "signal its supervisor", try: func(v victim) error { return unix.Kill(v.PID, 0) }},
	{name: "signal its process group", try: func(victim) error { return unix.Kill(0, 0) }},
	{name: "trace its supervisor", try: func(v victim) error {
		const seize = 0x4206 // PTRACE_SEIZE, which ends with the tracer
		return call(unix.SYS_PTRACE, seize, uintptr(v.PID), 0, 0)
	}},
	{name: "take a file of its supervisor", try: func(v victim) error {
		fd, err := unix.PidfdOpen(v.PID, 0)
		if err == nil {
			_, err = unix.PidfdGetfd(fd, 2, 0)
		}
		return err
	}},

	{name: "use the API", try: func(v victim) error { return dial("unix", v.API) }},
	{name: "use an abstract socket", try: func(v victim) error { return dial("unix", "@"+v.Abstract) }},
	{name: "use an unconnected pair", try: func(v victim) error {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
		if err == nil {
			err = unix.Connect(fds[0], &unix.SockaddrUnix{Name: v.API + ".dgram"})
		}
		return err
	}},
	{name: "use a service of the host", network: true, try: func(v victim) error { return dial("tcp", v.TCP) }},
	{name: "send to a service of the host", network: true, try: func(v victim) error {
		conn, err := net.Dial("udp", v.UDP)
		if err == nil {
			_, err = conn.Write([]byte("x"))
		}
		return err
	}},
	{name: "listen", network: true, try: func(victim) error { _, err := net.Listen("tcp", "127.0.0.1:0"); return err }},
	{name: "see the network's interfaces", try: func(victim) error {
		_, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
		return err
	}},
	{name: "see packets", root: true, try: func(victim) error { _, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0); return err }},

	{name: "execute a shell", try: func(victim) error { return exec.Command("/bin/sh", "-c", "exit 0").Run() }},
	{name: "become a shell", try: func(victim) error {
		// With arguments that the kernel does not take, lest it happen.
		return but(call(unix.SYS_EXECVE, pointer("/bin/sh"), 1, 0, 0), unix.EFAULT)
	}},
	{name: "execute itself", try: func(victim) error {
		cmd := exec.Command("/proc/self/exe")
		cmd.Args = []string{"right words"}
		return cmd.Run()
	}},
	{name: "execute a file in memory", try: executeMemory},
	{name: "make a user namespace", try: func(victim) error {
		cmd := exec.Command("/bin/true")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
		return cmd.Run()
	}},
	{name: "make a mount namespace", root: true, try: func(victim) error { return unix.Unshare(unix.CLONE_NEWNS) }},
	{name: "mount", root: true, try: func(v victim) error {
		defer func() { _ = unix.Unmount(v.Dir, unix.MNT_DETACH) }()
		return unix.Mount("none", v.Dir, "tmpfs", 0, "")
	}},
	{name: "make a device", root: true, try: func(v victim) error {
		defer os.Remove(v.Dir + "/node")
		return unix.Mknod(v.Dir+"/node", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3)))
	}},
	{name: "open a device", try: func(victim) error { return write("/dev/full") }},
	{name: "name the host", root: true, try: func(victim) error {
		var u unix.Utsname
		if err := unix.Uname(&u); err != nil {
			return err
		}
		return unix.Sethostname([]byte(unix.ByteSliceToString(u.Nodename[:])))
	}},

	{name: "make a key", try: func(victim) error {
		_, err := unix.AddKey("user", "hostile", []byte("x"), unix.KEY_SPEC_PROCESS_KEYRING)
		return err
	}},
	{name: "see the key ring", try: func(victim) error {
		_, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_USER_KEYRING, true)
		return err
	}},
	// With arguments that the kernel does not take: what counts is that it knows the call.
	{name: "use io_uring", try: func(victim) error { return but(call(unix.SYS_IO_URING_SETUP, 1, 0, 0, 0), unix.EFAULT) }},
	{name: "load BPF", try: func(victim) error { return but(call(unix.SYS_BPF, 5, 0, 128, 0), unix.EFAULT) }, root: true},
	{name: "share memory", try: func(victim) error { return but(call(unix.SYS_SHMGET, 1, 0, 0, 0), unix.EINVAL, unix.ENOENT) }},
	{name: "allow core dumps", try: func(victim) error {
		limit := unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}
		return unix.Prlimit(0, unix.RLIMIT_CORE, &limit, nil)
	}},
}

func read(path string) error {
	_, err := os.ReadFile(path)
	return err
}

func write(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// rewrite opens a file for writing that was inherited for reading.
func rewrite(fd int) error {
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

func dial(network, address string) error {
	conn, err := net.DialTimeout(network, address, time.Minute)
	if err != nil {
		return err
	}
	return conn.Close()
}

func call(number, a, b, c, d uintptr) error {
	if _, _, e := unix.Syscall6(number, a, b, c, d, 0, 0); e != 0 {
		return e
	}
	return nil
}

// but takes errors for success that come after the permission was given.
func but(err error, good ...error) error {
	if slices.ContainsFunc(good, func(g error) bool { return errors.Is(err, g) }) {
		return nil
	}
	return err
}

func pointer(s string) uintptr {
	p, _ := unix.BytePtrFromString(s)
	return uintptr(unsafe.Pointer(p))
}

func executeMemory(victim) error {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	f, err := memoryFile("hostile", self)
	if err != nil {
		return err
	}
	cmd := exec.Command(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	cmd.Args = []string{"right words"}
	return cmd.Run()
}

// hostile tries everything and prints what came of it. It finds its victim where a QEMU has the kernel's command
// line.
func hostile() {
	var v victim
	for _, word := range strings.Fields(strings.Join(os.Args, " ")) {
		if text, found := strings.CutPrefix(word, "victim="); found {
			data, err := base64.RawURLEncoding.DecodeString(text)
			if err == nil {
				err = json.Unmarshal(data, &v)
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
	}
	results := map[string]string{}
	for _, a := range attempts {
		results[a.name] = "done"
		if err := a.try(v); err != nil {
			results[a.name] = err.Error()
		}
	}
	_ = json.NewEncoder(os.Stdout).Encode(results)
}

// TestHostileQEMU has a hostile program in QEMU's place, as root's sandbox and as an ordinary user's.
func TestHostileQEMU(t *testing.T) {
	v, c := newVictim(t)
	program := fakeProgram(t, "hostile")
	t.Setenv("HOSTILE_SECRET", "of the caller")
	for _, tt := range []struct {
		name    string
		network bool
		nic     *NIC
	}{
		{"without a network", false, nil},
		{"with QEMU's own network", true, &NIC{MAC: "52:54:00:12:34:56", Backend: UserNetwork{}}},
		{"with a datagram socket", false, &NIC{MAC: "52:54:00:12:34:56", MTU: 65520, Backend: DatagramSocket{FD: firstFD}}},
	} {
		c, v := c, v
		c.NIC = tt.nic
		var files []*os.File
		if tt.nic != nil && tt.nic.Backend.fd() != 0 { // a file more, before the others
			_, theirs := datagrams(t)
			files = []*os.File{theirs}
			v.Kernel, v.Image, v.Layer, v.Disk = v.Kernel+1, v.Image+1, v.Layer+1, v.Disk+1
		}
		results := confined(t, program, v, c, files...)
		if len(results) != len(attempts) {
			t.Fatalf("%s: results %v", tt.name, slices.Sorted(maps.Keys(results)))
		}
		for _, a := range attempts {
			done := results[a.name] == "done"
			if want := a.allowed || (a.network && tt.network); done != want {
				t.Errorf("%s: %s: %s", tt.name, a.name, results[a.name])
			}
		}
	}
	if os.Getenv(withoutNamespaces) != "" {
		return
	}
	// So that the test can fail.
	free := unconfined(t, program, v, c)
	for _, a := range attempts {
		if a.root && os.Getuid() != 0 {
			continue
		}
		if result := free[a.name]; result != "done" {
			t.Errorf("%s proves nothing on this machine, because it fails without confinement, too: %s", a.name, result)
		}
	}
}

// TestHostileQEMUOfAnOrdinaryUser is TestHostileQEMU as somebody who is not root.
func TestHostileQEMUOfAnOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("TestHostileQEMU is run by an ordinary user already: run this one as root")
	}
	id, attr := ordinaryUser()
	hostileQEMUAs(t, id, attr)
}

// ordinaryUser is somebody whose id nobody has.
func ordinaryUser() (id int, attr *syscall.SysProcAttr) {
	id = 0x68000000 + os.Getpid() // as in cmd/sandbox
	return id, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(id), Gid: uint32(id)}}
}

// withoutNamespaces is set in the environment of a test that cannot make any.
const withoutNamespaces = "HOSTILE_WITHOUT_NAMESPACES"

// TestHostileQEMUWithoutNamespaces is TestHostileQEMU where only Landlock and the filter of system calls are left:
// in a user namespace in which none can be made, because its user has no number outside.
func TestHostileQEMUWithoutNamespaces(t *testing.T) {
	t.Setenv(withoutNamespaces, "1")
	hostileQEMUAs(t, os.Getuid(), &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Getuid(), Size: 1}},
	})
}

// hostileQEMUAs runs TestHostileQEMU in another process, whose files belong to the user id.
func hostileQEMUAs(t *testing.T, id int, attr *syscall.SysProcAttr) {
	t.Helper()
	if out, err := testAs(t, "TestHostileQEMU", id, attr, withoutNamespaces); err != nil || !bytes.Contains(out, []byte("--- PASS")) {
		if bytes.Contains(out, []byte("--- SKIP")) || errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
			t.Skipf("this machine does not offer everything (sandbox doctor says how to have it): %v\n%s", err, out)
		}
		t.Errorf("%v\n%s", err, out)
	}
}

// testAs runs a test of this package in another process, whose files belong to the user id, with a variable of ours in
// its environment, and returns its output.
func testAs(t *testing.T, test string, id int, attr *syscall.SysProcAttr, variable string) ([]byte, error) {
	t.Helper()
	program := fakeProgram(t, "qemu.test")
	dir := filepath.Dir(program)
	if err := os.Chown(dir, id, id); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run=^"+test+"$", "-test.v")
	cmd.Dir = dir
	cmd.Env = []string{"HOME=" + dir, "TMPDIR=" + dir, "PATH=" + os.Getenv("PATH"), variable + "=" + os.Getenv(variable)}
	cmd.SysProcAttr = attr
	return cmd.CombinedOutput()
}

// newVictim makes what a hostile program looks for, and a guest's configuration.
func newVictim(t *testing.T) (v victim, c Config) {
	t.Helper()
	dir, err := os.MkdirTemp("", "v") // short: sockets are in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // the directory alone keeps nobody out
		t.Fatal(err)
	}
	make := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	v = victim{PID: os.Getpid(), Home: filepath.Join(dir, "home"), Dir: filepath.Join(dir, "tmp"), API: filepath.Join(dir, "api.sock"), Abstract: dir}
	make("home/.ssh/id_ed25519", "secret")
	make("home/.bashrc", "")
	make("tmp/.keep", "")
	for _, l := range []struct{ network, address string }{{"unix", v.API}, {"unix", "@" + v.Abstract}, {"tcp", "127.0.0.1:0"}} {
		listener, err := net.Listen(l.network, l.address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { listener.Close() })
		v.TCP = listener.Addr().String() // the last one
	}
	for _, l := range []struct{ network, address string }{{"unixgram", v.API + ".dgram"}, {"udp", "127.0.0.1:0"}} {
		conn, err := net.ListenPacket(l.network, l.address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		v.UDP = conn.LocalAddr().String()
	}
	for _, path := range []string{v.API, v.API + ".dgram"} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	c = minimal()
	c.Arch = HostArch()
	c.Kernel = make("kernel", "kernel")
	c.Drives = []Drive{
		{ID: "store", Path: make("store", "image"), Format: "raw", ReadOnly: true},
		{ID: "disk", Path: make("disk", "disk"), Format: "qcow2", Backing: []string{make("below", "layer")}},
	}
	below, disk := c.Drives[1].Backing[0], c.Drives[1].Path
	if err := errors.Join(CreateDisk(below, 64<<20), CreateLayer(disk, filepath.Base(below), 64<<20)); err != nil {
		t.Fatal(err)
	}
	v.Kernel, v.Image, v.Layer, v.Disk = 3, 4, 5, 6
	return v, c
}

func (v victim) parameter(t *testing.T) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return "victim=" + base64.RawURLEncoding.EncodeToString(data)
}

// confined runs the program as a sandbox runs QEMU.
func confined(t *testing.T, program string, v victim, c Config, files ...*os.File) map[string]string {
	t.Helper()
	caps := Capabilities{
		Binary: program, Accels: []Accel{AccelTCG}, Options: []string{"sandbox"}, Devices: c.devices(),
		Machines: []string{string(MachineQ35), string(MachineVirt)},
	}
	c.Cmdline = []string{v.parameter(t)}
	var out bytes.Buffer
	p, err := start(t.Context(), caps, c, &out, files...)
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	missing := slices.DeleteFunc(p.Walls.Missing(), func(wall string) bool {
		return os.Getenv(withoutNamespaces) != "" && strings.HasPrefix(wall, "namespaces:")
	})
	if len(missing) > 0 {
		t.Skipf("this machine does not offer everything (sandbox doctor says how to have it): %s", strings.Join(missing, "; "))
	}
	return results(t, out.Bytes(), p.Err())
}

// unconfined runs it as the user that the test has, with the same files.
func unconfined(t *testing.T, program string, v victim, c Config) map[string]string {
	t.Helper()
	cmd := exec.Command(program, v.parameter(t))
	for _, path := range []string{c.Kernel, c.Drives[0].Path, c.Drives[1].Backing[0], c.Drives[1].Path} {
		flags := os.O_RDONLY
		if path == c.Drives[1].Path {
			flags = os.O_RDWR
		}
		f, err := os.OpenFile(path, flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	out, err := cmd.Output()
	return results(t, out, err)
}

func results(t *testing.T, out []byte, err error) (list map[string]string) {
	t.Helper()
	if err == nil {
		err = json.Unmarshal(out, &list)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return list
}
