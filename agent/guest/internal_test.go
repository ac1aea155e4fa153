//go:build linux

package guest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/rfc1035label"
	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/boot"
)

// says reports whether err has the given text, or is nil if that is empty.
func says(err error, text string) bool {
	if text == "" || err == nil {
		return text == "" && err == nil
	}
	return strings.Contains(err.Error(), text)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestMountPointsInTheHomeBelongToTheUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give directories away: run the tests as root to see this one")
	}
	root := t.TempDir()
	user := boot.User{Name: "agent", UID: 1234, GID: 1235, Home: "/home/agent"}
	for target, want := range map[string]string{
		"src/deep/project": "/home/agent/src/deep/project",
		"/srv/data":        "/srv/data",
		"/home/agent/../x": "/home/x",
	} {
		path := shareTarget(user.Home, target)
		if path != want {
			t.Errorf("%s is at %s, want %s", target, path, want)
		}
		point, err := directoryPoint(root, path, user)
		if err != nil {
			t.Fatal(err)
		}
		point.Close()
	}
	for path, uid := range map[string]uint32{
		"/home": 0, "/home/agent": 1234, "/home/agent/src": 1234, "/home/agent/src/deep/project": 1234,
		"/srv": 0, "/srv/data": 0, "/home/x": 0,
	} {
		info, err := os.Stat(root + path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Sys().(*syscall.Stat_t).Uid; got != uid {
			t.Errorf("%s belongs to %d, want %d", path, got, uid)
		}
	}
	write(t, root+"/file", "")
	if _, err := directoryPoint(root, "/file", user); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a file as mount point: %v", err)
	}
}

// A home is kept from boot to boot, and root mounts in it before any program of the next one runs.
func TestNoLinkOfTheHomeLeadsWhatIsMountedAtBoot(t *testing.T) {
	root := t.TempDir()
	user := boot.User{UID: os.Getuid(), GID: os.Getgid(), Home: "/home/agent"}
	for _, dir := range []string{"/home/agent", "/etc", "/disk"} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"relative": "../../etc", "absolute": root + "/etc"} {
		if err := os.Symlink(to, root+"/home/agent/"+name); err != nil {
			t.Fatal(err)
		}
	}
	const want = "is a symbolic link"
	for _, target := range []string{"relative", "relative/x", "absolute/x"} {
		for _, share := range []agent.Mount{{}, {CopyOnWrite: true}, {File: "file"}} {
			share.Tag, share.Target = "share0", target
			if share.File != "" {
				share.Target += "/x"
			}
			if err := mountShares(root, user, []agent.Mount{share}, nil); !says(err, want) {
				t.Errorf("a share at %s: %v", share.Target, err)
			}
		}
		if err := (&disk{at: root + "/disk"}).bindCache(root, "/home/agent/"+target, user); !says(err, want) {
			t.Errorf("a cache at %s: %v", target, err)
		}
	}
	if made, err := os.ReadDir(root + "/etc"); err != nil || len(made) != 0 {
		t.Errorf("behind the links is %v now, %v", made, err)
	}
	if err := applyMounts(root, boot.User{Home: "/home/agent/relative"}, nil, nil); !says(err, want) {
		t.Errorf("the home: %v", err)
	}
}

func TestEmptyHomeGetsTheSkeleton(t *testing.T) {
	skeleton, home := t.TempDir(), t.TempDir()
	user := boot.User{UID: os.Getuid(), GID: os.Getgid()}
	if err := os.MkdirAll(skeleton+"/.config/tool", 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, skeleton+"/.zshrc", "zsh")
	write(t, skeleton+"/.config/tool/rc", "rc")
	if err := os.Symlink(".zshrc", skeleton+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := fillHome(skeleton, home, user); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{".zshrc": "zsh", ".config/tool/rc": "rc", "link": "zsh"} {
		if got, err := os.ReadFile(filepath.Join(home, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if info, err := os.Stat(home + "/.config"); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf(".config: %v, %v", info, err)
	}

	// What the user has removed since must not come back.
	os.Remove(home + "/.zshrc")
	if err := fillHome(skeleton, home, user); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(home + "/.zshrc"); !os.IsNotExist(err) {
		t.Errorf("the skeleton was copied into a home in use: %v", err)
	}
	if err := fillHome(skeleton+"/absent", t.TempDir(), user); err != nil {
		t.Errorf("without a skeleton: %v", err)
	}
}

func TestIdentity(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(root+"/etc", 0o755); err != nil {
		t.Fatal(err)
	}
	read := func() string {
		id, err := os.ReadFile(root + "/etc/machine-id")
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(id))
	}
	for _, before := range []string{"", "uninitialized\n"} {
		write(t, root+"/etc/machine-id", before)
		if err := ensureMachineID(root); err != nil {
			t.Fatal(err)
		}
		if id := read(); len(id) != 32 {
			t.Errorf("the machine id after %q is %q", before, id)
		}
		os.Remove(root + "/etc/machine-id")
	}
	if err := ensureMachineID(root); err != nil {
		t.Fatal(err)
	}
	first := read()
	if err := ensureMachineID(root); err != nil || read() != first {
		t.Errorf("a valid machine id was replaced, or %v", err)
	}
}

func TestConfigIsCheckedBeforeItIsApplied(t *testing.T) {
	for want, config := range map[string]agent.BootConfig{
		"lacks its tag":    {Mounts: []agent.Mount{{Target: "x"}}},
		"is not a host":    {Hostname: "a b"},
		"lacks its name":   {Environment: []string{"A=b", "=c"}},
		"or its value":     {Environment: []string{"A"}},
		"a zero byte":      {Environment: []string{"A=b\x00c"}},
		"the SSH host key": {HostKey: []byte("garbage")},
	} {
		if err := checkConfig(config); !says(err, want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	if err := checkConfig(agent.BootConfig{Hostname: "box-1", Environment: []string{"A=b=c", "B="}, Mounts: []agent.Mount{{Tag: "home", Target: "/home"}}}); err != nil {
		t.Error(err)
	}
}

func TestProgress(t *testing.T) {
	now := time.Duration(0)
	p := newProgress(func() time.Duration { now += time.Second; return now })
	waited := make(chan error)
	go func() { waited <- p.wait(t.Context(), agent.StageAgent) }()
	p.reach(agent.StageStore)
	p.reach(agent.StageAgent)
	if err := <-waited; err != nil {
		t.Error(err)
	}
	first := p.snapshot().Reached[agent.StageAgent]
	p.reach(agent.StageAgent)
	if again := p.snapshot().Reached[agent.StageAgent]; again != first {
		t.Errorf("a stage was reached again at %v after %v", again, first)
	}

	go func() { waited <- p.wait(t.Context(), agent.StageSystem) }()
	reason := errors.New("reason")
	p.fail(reason)
	if err := <-waited; !errors.Is(err, reason) {
		t.Errorf("got %v, want %v", err, reason)
	}
	if err := p.wait(t.Context(), agent.StageAgent); err != nil {
		t.Errorf("a stage that was reached is lost by a later failure: %v", err)
	}
	if got := p.snapshot().Failure; got != "reason" {
		t.Errorf("the status says %q", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := newProgress(uptime).wait(ctx, agent.StageAgent); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestWaitForPath(t *testing.T) {
	waited := make(chan error)
	var path string
	for range 20 {
		// Who looks for the deepest directory that exists meets, on its way up, who makes them.
		path = filepath.Join(t.TempDir(), strings.Repeat("a/", 200), "b")
		go func() { waited <- waitForPath(t.Context(), path) }()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, path+".other", "")
		write(t, path, "")
		if err := <-waited; err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { waited <- waitForPath(ctx, path+".never") }()
	cancel()
	if err := <-waited; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestLinesOfTheKernelLog(t *testing.T) {
	var out bytes.Buffer
	logger := slog.New(newKernelLog(&out))
	logger.Info("ready", "uptime", time.Second)
	logger.Debug("not shown")
	logger.Warn("two\nlines", "err", errors.New("a\nb"))
	logger.With("share", "home").Error("bad")
	want := "<6>sandbox-agent: ready uptime=1s\n" +
		"<4>sandbox-agent: two; lines err=\"a\\nb\"\n" +
		"<1>sandbox-agent: bad share=home\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestModulesThatAreAbsentOrBuiltInAreNoProblem(t *testing.T) {
	logger := slog.New(slog.DiscardHandler)
	dir := filepath.Join(t.TempDir(), "modules")
	if err := loadModules(dir, false, logger); err != nil {
		t.Errorf("without modules: %v", err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/order", "absent.ko\n\nbroken.ko\nvirtio_balloon.ko\npvpanic.ko pvpanic-pci.ko\n")
	write(t, dir+"/broken.ko", "not a module")
	if openLateModules(dir) != nil {
		t.Error("absent modules were opened")
	}
	write(t, dir+"/virtio_balloon.ko", "nor is this")
	write(t, dir+"/pvpanic-pci.ko", "nor is this")
	late := openLateModules(dir)
	if err := loadModules(dir, false, logger); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the modules still take up memory: %v", err)
	}
	// Those for later are still to be had, and their failure harms nobody.
	if len(late) != 2 {
		t.Fatalf("%d modules are for later, want 2", len(late))
	}
	for _, module := range late {
		if text, err := io.ReadAll(module); err != nil || string(text) != "nor is this" {
			t.Errorf("the module %s: %q, %v", module.Name(), text, err)
		}
	}
	s := &service{logger: logger, late: late}
	s.loadLateModules()
	for _, module := range late {
		if err := module.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("the module %s stays open: %v", module.Name(), err)
		}
	}
}

func TestLeaseBecomesResolvConf(t *testing.T) {
	ack, err := dhcpv4.New(
		dhcpv4.WithDNS(net.IPv4(10, 0, 2, 3), net.IPv4(9, 9, 9, 9)),
		dhcpv4.WithLeaseTime(7200),
		dhcpv4.WithOption(dhcpv4.OptDomainSearch(&rfc1035label.Labels{Labels: []string{"a.example", "b.example"}})),
	)
	if err != nil {
		t.Fatal(err)
	}
	want := "# from DHCP, by sandbox-agent\nnameserver 10.0.2.3\nnameserver 9.9.9.9\nsearch a.example b.example\n"
	if got := resolvConf(ack); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := renewAfter(ack); got != time.Hour {
		t.Errorf("a lease of two hours is renewed after %v", got)
	}
	ack.UpdateOption(dhcpv4.OptIPAddressLeaseTime(time.Second))
	if got := renewAfter(ack); got != renewMin {
		t.Errorf("a lease of one second is renewed after %v", got)
	}
}

func TestFailedUnits(t *testing.T) {
	got := failedUnits("a.service loaded failed failed Something\n\nb.mount    loaded failed failed x\n")
	if strings.Join(got, ",") != "a.service,b.mount" {
		t.Errorf("got %q", got)
	}
}
