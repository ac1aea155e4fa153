package libvirt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/fsnotify/fsnotify"

	"github.com/sourcery-zone/sandbox/qmp"
	"github.com/sourcery-zone/sandbox/qmp/libvirt"
)

// nobody runs the libvirtd of a test that is run by root, whose own would be that of the system.
const nobody = 65534

// within is a context that ends with a test that hangs.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// startLibvirt runs a libvirtd of the session kind, all of whose files are in a directory of the
// test's, and returns its URI.
func startLibvirt(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("libvirtd")
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/libvirtd") // not in the path of users on Debian
	}
	if err != nil {
		t.Skip("needs libvirtd: run make setup-test, or sudo apt install libvirt-daemon libvirt-daemon-driver-qemu")
	}
	dir, err := os.MkdirTemp("", "libvirt") // a short path, because sockets lie in it
	if err != nil {
		t.Fatal(err)
	}
	var output bytes.Buffer
	cmd := exec.Command(path)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "XDG_RUNTIME_DIR=" + dir}
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.WaitDelay = time.Second // what it has started may hold them
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Getuid() == 0 {
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	sockets := filepath.Join(dir, "libvirt")
	await := awaitFile(t, dir, sockets)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		impatient := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		impatient.Stop()
		if t.Failed() {
			t.Logf("libvirtd: %s", &output)
		}
		os.RemoveAll(dir)
	})
	await(filepath.Join(sockets, "libvirt-admin-sock")) // made when the other is listened on
	return "qemu:///session?socket=" + filepath.Join(sockets, "libvirt-sock")
}

// awaitFile watches a directory that exists, and one within it that will, and returns a function that
// waits for a file in the latter.
func awaitFile(t *testing.T, outer, inner string) func(path string) {
	t.Helper()
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { watcher.Close() })
	if err := watcher.Add(outer); err != nil {
		t.Fatal(err)
	}
	ctx := within(t)
	return func(path string) {
		t.Helper()
		for {
			_ = watcher.Add(inner) // until it is there
			if _, err := os.Stat(path); err == nil {
				return
			}
			select {
			case <-watcher.Events:
			case <-ctx.Done():
				t.Fatalf("%s did not appear", path)
			}
		}
	}
}

// startDomain makes libvirt run a machine that boots nothing.
func startDomain(t *testing.T, uri, name string) *golibvirt.Libvirt {
	t.Helper()
	emulator, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("needs QEMU: run make setup-test, or sudo apt install qemu-system-x86")
	}
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	l, err := golibvirt.ConnectToURI(u)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Disconnect() }) // a test may have done so
	domain, err := l.DomainDefineXML(fmt.Sprintf(`<domain type='qemu'>
		<name>%s</name><memory unit='MiB'>16</memory>
		<os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features>
		<devices><emulator>%s</emulator><controller type='usb' model='none'/><memballoon model='none'/></devices>
	</domain>`, name, emulator))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.DomainCreateWithFlags(domain, uint32(golibvirt.DomainStartPaused)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.DomainDestroy(domain) }) // a test may have done so
	return l
}

func TestLibvirtsDomainIsAClientLikeAnother(t *testing.T) {
	ctx := within(t)
	uri := startLibvirt(t)
	l := startDomain(t, uri, "tiny")
	client, err := libvirt.Dial(ctx, uri, "tiny", qmp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if v := client.Greeting().Version; v.QEMU.Major < 7 {
		t.Errorf("version %v", v)
	}
	script, err := qmp.ParseScript("test.qmp", strings.NewReader(`
{"execute": "query-status", "expect": {"running": false}}
{"execute": "cont"}
{"wait-for-event": "RESUME"}
{"execute": "stop"}
{"wait-for-event": "STOP"}
{"execute": "query-status", "expect": {"status": "paused"}}
{"execute": "device_del", "arguments": {"id": "nothing"}, "expect-error": "DeviceNotFound"}
{"execute": "query-qmp-schema"}
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := script.Run(ctx, client, qmp.RunOptions{}); err != nil {
		t.Fatal(err)
	}

	// Its failure is all that a job without a disk can show, and it is one job all the same.
	err = client.RunJob(ctx, "snapshot-save", map[string]any{"tag": "x", "vmstate": "none", "devices": []string{}}, "save")
	if _, ok := errors.AsType[*qmp.JobError](err); !ok {
		t.Errorf("a job that fails: %v", err)
	}
	if jobs, err := client.Jobs(ctx); err != nil || len(jobs) != 0 {
		t.Errorf("jobs that are left: %v, %v", jobs, err)
	}

	domain, err := l.DomainLookupByName("tiny")
	if err != nil {
		t.Fatal(err)
	}
	events, err := client.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.DomainDestroy(domain); err != nil {
		t.Fatal(err)
	}
	err = client.Stop(ctx)
	if !qmp.IsClass(err, qmp.ClassLibvirt) || !strings.Contains(err.Error(), "libvirt did not carry out") {
		t.Errorf("after the domain's end: %v", err)
	}
	_, err = libvirt.Dial(ctx, uri, "tiny", qmp.Options{})
	if err == nil || !strings.Contains(err.Error(), "start tiny starts it") {
		t.Errorf("a domain that is off: %v", err)
	}
	_, err = libvirt.Dial(ctx, uri, "nobody", qmp.Options{})
	if err == nil || !strings.Contains(err.Error(), `no domain "nobody"`) {
		t.Errorf("an unknown domain: %v", err)
	}
	client.Close()
	for range events { // it is closed
	}
}

func TestDialSaysWhatIsWrong(t *testing.T) {
	ctx := within(t)
	for uri, want := range map[string]string{
		"xen:///system": "is no libvirt URI for QEMU",
		"qemu:///":      "is no libvirt URI for QEMU",
		"qemu:///system?socket=/nonexistent/sock": "there is no libvirt at",
		"qemu+carrier-pigeon://host/system":       `transport "carrier-pigeon" is not one of`,
		"qemu:///system?sokcet=/nonexistent":      `parameter "sokcet"`,
	} {
		_, err := libvirt.Dial(ctx, uri, "tiny", qmp.Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", uri, err)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := libvirt.Dial(ended, "qemu:///system?socket=/nonexistent/sock", "tiny", qmp.Options{}); err == nil {
		t.Error("connected without a libvirt")
	}
}
