package qemu

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestProbeReadsRecordedBinaries(t *testing.T) {
	for _, tt := range []struct {
		fixture  string
		version  Version
		accels   []Accel
		machines []string
	}{
		{"x86_64-7.2", Version{7, 2, 22}, []Accel{AccelTCG, AccelKVM}, []string{"microvm", "pc", "pc-q35-7.2", "q35"}},
		{"x86_64-10.0", Version{10, 0, 2}, []Accel{AccelTCG, AccelKVM}, []string{"microvm", "pc", "pc-q35-10.0", "q35"}},
		{"aarch64-7.2", Version{7, 2, 22}, []Accel{AccelTCG}, []string{"virt", "virt-7.2"}},
		{"aarch64-10.0", Version{10, 0, 2}, []Accel{AccelTCG}, []string{"virt", "virt-10.0"}},
	} {
		t.Run(tt.fixture, func(t *testing.T) {
			caps := capabilities(t, tt.fixture)
			if caps.Version != tt.version || !slices.Equal(caps.Accels, tt.accels) {
				t.Errorf("version %v, accelerators %q", caps.Version, caps.Accels)
			}
			contains(t, "machines", caps.Machines, tt.machines...)
			// With aliases, and other models than the first of a line.
			contains(t, "devices", caps.Devices, "virtio-blk-pci", "virtio-blk", "vhost-user-fs-pci", "virtserialport")
			contains(t, "options", caps.Options, "sandbox", "blockdev", "machine")
			if slices.Contains(caps.Machines, "Supported") {
				t.Error("a heading was taken for a machine type")
			}
		})
	}
}

func contains(t *testing.T, what string, list []string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !slices.Contains(list, w) {
			t.Errorf("%s lack %q: %q", what, w, list)
		}
	}
}

func TestProbeAsksAgainOnlyWhenTheBinaryChanged(t *testing.T) {
	binary, runs := fakeQEMU(t, "x86_64-10.0")
	dir := filepath.Join(t.TempDir(), "cache") // does not exist yet
	count := func() int {
		data, err := os.ReadFile(runs)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(data), "run")
	}
	probe := func() Capabilities {
		t.Helper()
		caps, err := Probe(context.Background(), binary, dir)
		if err != nil {
			t.Fatal(err)
		}
		return caps
	}
	first := probe()
	asked := count()
	if second := probe(); count() != asked || !reflect.DeepEqual(first, second) {
		t.Errorf("the second probe ran the binary or gave another answer: %+v, %+v", first, second)
	}

	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("the cache holds %q, %v", files, err)
	}
	if info, err := os.Stat(files[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the cached file: %v, %v", info, err)
	}
	if err := os.WriteFile(files[0], []byte("{damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if probe(); count() != 2*asked {
		t.Error("a damaged answer was not asked for again")
	}
	if err := os.Chtimes(binary, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if probe(); count() != 3*asked {
		t.Error("a changed binary was not asked again")
	}
}

func TestFirmwareThatIsInstalledLaterIsFound(t *testing.T) {
	data, cache := t.TempDir(), t.TempDir()
	binary := fakeBinary(t, fmt.Sprintf(`case $1 in
-version) echo QEMU emulator version 10.0.2 ;;
-machine) printf 'Supported machines are:\nmicrovm  microvm (i386)\nq35  alias\n' ;;
-L) echo %q ;;
esac`, data))
	auto := Config{Arch: X86_64, Accel: AccelKVM}
	for _, want := range []Machine{MachineQ35, MachineMicroVM, MachineQ35} {
		caps, err := Probe(t.Context(), binary, cache)
		if err != nil {
			t.Fatal(err)
		}
		if got := auto.ChooseMachine(caps); got != want {
			t.Errorf("with the firmware %q, %s is chosen and not %s", caps.QBoot, got, want)
		}
		if err := caps.CheckFirmware(); (err == nil) != (want == MachineMicroVM) || err != nil && !strings.Contains(err.Error(), "qemu-system-data (Debian") {
			t.Errorf("with the firmware %q: %v", caps.QBoot, err)
		}
		path := filepath.Join(data, "qboot.rom")
		if os.Remove(path) != nil {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestProbeSaysWhatIsWrongWithTheBinary(t *testing.T) {
	notExecutable := filepath.Join(t.TempDir(), "qemu")
	if err := os.WriteFile(notExecutable, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ binary, want string }{
		"absent":         {"/nonexistent/qemu", "no such file"},
		"directory":      {t.TempDir(), "is a directory and not a QEMU binary"},
		"not executable": {notExecutable, "is not executable: chmod +x it"},
		"another tool":   {fakeBinary(t, "echo GNU hello 2.10"), `is not QEMU: -version prints "GNU hello 2.10"`},
		"failing":        {fakeBinary(t, "echo broken library >&2; exit 127"), "broken library"},
		"too old":        {fakeBinary(t, "echo QEMU emulator version 6.2.0"), "is QEMU 6.2.0, and at least 7.2 is needed"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Probe(context.Background(), tt.binary, t.TempDir())
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.binary) {
				t.Errorf("Probe = %v, want %q and the path", err, tt.want)
			}
		})
	}
}

func TestProbeEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := Probe(ctx, fakeBinary(t, "exec sleep 600"), "")
	if err == nil || !strings.Contains(err.Error(), "gave no answer") {
		t.Errorf("Probe = %v", err)
	}
}

func TestVersionOrder(t *testing.T) {
	for _, tt := range []struct {
		v            Version
		major, minor int
		want         bool
	}{
		{Version{7, 2, 0}, 7, 2, true},
		{Version{7, 1, 9}, 7, 2, false},
		{Version{10, 0, 2}, 7, 2, true},
		{Version{10, 0, 2}, 10, 1, false},
	} {
		if got := tt.v.AtLeast(tt.major, tt.minor); got != tt.want {
			t.Errorf("%v.AtLeast(%d, %d) = %v", tt.v, tt.major, tt.minor, got)
		}
	}
}

func TestFindNamesThePackage(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	other := AArch64
	if HostArch() == AArch64 {
		other = X86_64
	}
	if _, err := Find(other); err == nil || !strings.Contains(err.Error(), "Debian") || !strings.Contains(err.Error(), "Fedora") {
		t.Errorf("Find = %v, want the packages' names", err)
	}
}

func TestFindReturnsAnAbsolutePath(t *testing.T) {
	dir := t.TempDir()
	want := filepath.Join(dir, "qemu-system-aarch64")
	if err := os.WriteFile(want, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	if got, err := Find(AArch64); got != want || err != nil {
		t.Errorf("Find = %q, %v, want %q", got, err, want)
	}
}

func TestCapabilitiesSurviveJSON(t *testing.T) {
	caps := capabilities(t, "x86_64-7.2")
	data, err := json.Marshal(caps)
	if err != nil {
		t.Fatal(err)
	}
	var got Capabilities
	if err := json.Unmarshal(data, &got); err != nil || !reflect.DeepEqual(got, caps) {
		t.Errorf("after JSON: %+v, %v", got, err)
	}
}
