package machine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/machine/disk"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/machine/snapshot"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// testPlan is how the configuration would run with a QEMU of the test's.
func testPlan(t *testing.T, c Config) *Plan {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "qemu")
	writeFile(t, binary, "a program")
	return &Plan{
		Hardware: c.Hardware, Image: &image.Image{}, Shares: c.Shares, Transport: agent.TransportSerial,
		QEMU: qemu.Capabilities{
			Binary: binary, Accels: []qemu.Accel{qemu.AccelTCG}, Machines: []string{"q35"}, Options: []string{"sandbox"},
			Devices: []string{"virtio-rng-pci", "virtio-blk-pci", "vhost-user-fs-pci", "virtio-net-pci", "virtio-serial-pci", "virtio-balloon-pci", "pvpanic-pci", "pcie-root-port"},
		},
		VM: qemu.Config{
			Name: c.Name, Arch: qemu.X86_64, Accel: qemu.AccelTCG, Machine: qemu.MachineQ35, CPUs: c.CPUs, MemoryMiB: c.MemoryMiB,
			Kernel: "/images/kernel", MonitorFD: 3, AgentFD: 4, ConsoleFD: 5,
		},
	}
}

func key(t *testing.T, c Config, change func(*Config, *Plan)) string {
	t.Helper()
	plan := testPlan(t, c)
	// The binary's time and place are a part of the key; they must not differ by accident.
	binary := plan.QEMU.Binary
	if err := os.Chtimes(binary, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	change(&c, plan)
	plan.Hardware = c.Hardware
	got, err := plan.TemplateKey(len(plan.Shares))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestTemplateIsOfNobodyAndOfOneKindOfMachine(t *testing.T) {
	c := testConfig("a")
	c.Shares = []virtiofs.Share{{Source: "/src", Target: "/home/agent/src"}}
	same := key(t, c, func(*Config, *Plan) {})
	for what, change := range map[string]func(*Config, *Plan){
		"the name": func(c *Config, p *Plan) { c.Name, p.VM.Name = "b", "b" },
		"the shares' places": func(c *Config, p *Plan) {
			p.Shares = []virtiofs.Share{{Source: "/other", Target: "/elsewhere", ReadOnly: true}}
		},
		"keys and ports": func(c *Config, _ *Plan) { c.AuthorizedKeys, c.SSHPort = []string{"key"}, 2222 },
	} {
		if key(t, c, change) != same {
			t.Errorf("%s makes another template necessary", what)
		}
	}
	for what, change := range map[string]func(*Config, *Plan){
		"the image":            func(c *Config, _ *Plan) { c.Image = image.Ref{Name: "test", Digest: "1"} },
		"the memory":           func(c *Config, p *Plan) { c.MemoryMiB, p.VM.MemoryMiB = 1024, 1024 },
		"the CPUs":             func(c *Config, p *Plan) { c.CPUs, p.VM.CPUs = 2, 2 },
		"the number of shares": func(_ *Config, p *Plan) { p.Shares = nil },
		"the home":             func(c *Config, _ *Plan) { c.NoHome = true },
		"the disk":             func(c *Config, _ *Plan) { c.DiskMiB = 64 },
		"the network":          func(c *Config, _ *Plan) { c.Network = network.ModeNone },
		"QEMU's version":       func(_ *Config, p *Plan) { p.QEMU.Version.Minor++ },
		"QEMU's file": func(_ *Config, p *Plan) {
			if err := os.Chtimes(p.QEMU.Binary, time.Unix(2, 0), time.Unix(2, 0)); err != nil {
				t.Fatal(err)
			}
		},
		"virtiofsd":          func(_ *Config, p *Plan) { p.Virtiofsd.Version = "2.0" },
		"the kernel's words": func(_ *Config, p *Plan) { p.VM.Cmdline = []string{"quiet"} },
	} {
		if key(t, c, change) == same {
			t.Errorf("%s does not matter", what)
		}
	}
}

func TestTemplatesThatNobodyCanUseAreRemoved(t *testing.T) {
	h := testHost(t)
	root := filepath.Join(h.Dirs.Cache, templatesDir)
	installed := testImage(t)
	for name, made := range map[string]struct {
		image string
		age   time.Duration
	}{
		"used":      {installed, 0},
		"forgotten": {installed, templateLife + time.Hour},
		"orphan":    {"gone@" + strings.Repeat("0", 64), 0},
		".new-half": {"", time.Hour},
		".new-busy": {"", 0},
	} {
		dir := filepath.Join(root, name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if made.image != "" {
			if err := snapshot.Write(dir, snapshot.Manifest{Version: snapshot.Version, Needs: snapshot.Needs{Image: image.ParseRef(made.image)}}); err != nil {
				t.Fatal(err)
			}
		}
		then := time.Now().Add(-made.age)
		if err := os.Chtimes(dir, then, then); err != nil {
			t.Fatal(err)
		}
	}
	h.SweepTemplates()
	var left []string
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if got := strings.Join(left, " "); got != ".new-busy used" {
		t.Errorf("left are %q", got)
	}
}

// testImage makes a small image and returns its directory.
func testImage(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	file := func(name string) image.File {
		writeFile(t, filepath.Join(dir, name), name)
		f, err := image.Describe(t.Context(), dir, name)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	m := image.Manifest{
		Version: image.Version, Name: "tiny", System: "x86_64-linux", Kernel: file("kernel"), Initrd: file("initrd"),
		Store: image.StoreFile{File: file("store"), Format: "erofs", Label: "s", Mount: "/"}, Init: "/sbin/init",
		Cmdline: []string{"quiet"}, User: image.User{Name: "agent", UID: 1000, GID: 1000, Home: "/home/agent", Shell: "/bin/sh"},
		Agent: image.Agent{Port: 1024}, Provenance: image.Provenance{Builder: "test", Built: time.Unix(1, 0).UTC()},
	}
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, image.ManifestFile), string(data))
	return dir
}

func TestTemplateThatWasWrittenToIsRefused(t *testing.T) {
	for _, name := range []string{snapshot.DevicesFile, snapshot.MemoryFile, disk.Layers(layout.DiskDir).File(0)} {
		s := create(t, testHost(t), "a")
		snap := saveTest(t, s, "one", time.Now())
		writeFile(t, filepath.Join(s.Files().Snapshot(snap.Tag), layout.ClientKey), "key")
		for name, file := range map[string]*snapshot.File{snapshot.DevicesFile: &snap.Devices, snapshot.MemoryFile: snap.Memory, disk.Layers(layout.DiskDir).File(0): &snap.Disk[0]} {
			path := filepath.Join(s.Files().Snapshot(snap.Tag), name) // long ago, because clocks of file systems tick slowly
			if err := os.Chtimes(path, time.Time{}, time.Unix(1e9, 0)); err != nil {
				t.Fatal(err)
			}
			var err error
			if *file, err = snapshot.Describe(t.Context(), path); err != nil {
				t.Fatal(err)
			}
		}
		template := Template{dir: filepath.Join(t.TempDir(), "template"), host: s.host}
		if err := snapshot.Link(t.Context(), s.Files().Snapshot(snap.Tag), template.dir, snap); err != nil {
			t.Fatal(err)
		}
		if err := template.check(t.Context()); err != nil {
			t.Fatalf("as it was saved: %v", err)
		}
		path := filepath.Join(template.dir, name)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("X"), 0); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if name == snapshot.DevicesFile { // even if that does not show
			if err := os.Chtimes(path, time.Time{}, info.ModTime()); err != nil {
				t.Fatal(err)
			}
		}
		if err := template.check(t.Context()); err == nil || !strings.Contains(err.Error(), "is not what was saved") {
			t.Errorf("after somebody had written to %s: %v", name, err)
		}
	}
}
