package debian

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/internal/progress"
	"github.com/sourcery-zone/sandbox/internal/remedy"
)

// fakeAgent is as much of a static program as its check looks at.
func fakeAgent(t *testing.T, machine elf.Machine, salt string) string {
	t.Helper()
	h := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT), Ehsize: 64,
	}
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, h); err != nil {
		t.Fatal(err)
	}
	b.WriteString(salt)
	name := filepath.Join(t.TempDir(), "sandbox-agent")
	if err := os.WriteFile(name, b.Bytes(), 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

// fakeMmdebstrap puts a stand-in first in PATH. It counts its runs in the
// returned file, answers the question for the archive's date, and otherwise
// does what script says.
func fakeMmdebstrap(t *testing.T, script string) (runs string) {
	t.Helper()
	dir := t.TempDir()
	runs = filepath.Join(dir, "runs")
	text := fmt.Sprintf(`#!/bin/sh
case " $* " in
*" --version "*) echo "mmdebstrap 1.5.5"; exit;;
*"--format=null"*) echo "Sun, 22 Nov 2026 02:09:05 UTC" >&3; exit;;
esac
echo run >>%s
%s
`, runs, script)
	if err := os.WriteFile(filepath.Join(dir, "mmdebstrap"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return runs
}

// bareRoom runs stand-ins as this test's user among this machine's files.
func bareRoom(parent, _ string, _ []string) (*room, error) {
	dir, err := os.MkdirTemp(parent, roomPrefix)
	if err != nil {
		return nil, err
	}
	r := &room{dir: dir, script: `while [ "$1" != -- ]; do shift; done; shift; exec "$@"`}
	return r, errors.Join(os.Mkdir(r.given(), 0o700), os.Mkdir(r.temp(), 0o700))
}

// bootable is a system with all modules that the recipe wants, most of them
// built in.
func bootable(t *testing.T) string {
	t.Helper()
	files := system()
	var builtin strings.Builder
	for _, m := range bootModules() {
		if m != "crc32c-intel erofs" {
			fmt.Fprintf(&builtin, "kernel/%s.ko\n", m)
		}
	}
	files["usr/lib/modules/6.12.0-cloud/modules.builtin"] = builtin.String()
	name := filepath.Join(t.TempDir(), "system.tar")
	if err := os.WriteFile(name, tarball(t, files).Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func count(t *testing.T, runs string) int {
	t.Helper()
	data, err := os.ReadFile(runs)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Count(string(data), "run")
}

func TestBuild(t *testing.T) {
	runs := fakeMmdebstrap(t, `[ "$SOURCE_DATE_EPOCH" = 1795313345 ] || exit 3
echo "I: installing essential packages..." >&2
cat `+bootable(t))
	var said bytes.Buffer
	o := Options{Arch: "x86_64", Agent: fakeAgent(t, elf.EM_X86_64, ""), CacheDir: filepath.Join(t.TempDir(), "cache"), Progress: progress.NewPlain(&said), newRoom: bareRoom}
	build := func(o Options) *image.Image {
		t.Helper()
		dir, err := Build(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		img, err := image.Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := img.Verify(t.Context()); err != nil {
			t.Fatal(err)
		}
		return img
	}
	first := build(o)
	m := first.Manifest
	inputs, err := o.Inputs()
	if err != nil {
		t.Fatal(err)
	}
	agent, err := o.AgentDigest()
	if err != nil {
		t.Fatal(err)
	}
	if m.Name != "debian" || m.System != "x86_64-linux" || m.Provenance.Inputs != inputs || m.Provenance.AgentSHA != agent ||
		!m.Provenance.Built.Equal(time.Date(2026, 11, 22, 2, 9, 5, 0, time.UTC)) || len(m.Provenance.Packages) != 1 {
		t.Errorf("manifest: %+v", m)
	}
	if !strings.Contains(said.String(), "installing essential packages") {
		t.Errorf("progress: %q", said.String())
	}

	if second := build(o); second.Digest != first.Digest || count(t, runs) != 1 {
		t.Errorf("the same again: %s and %s, %d runs", first.Ref(), second.Ref(), count(t, runs))
	}
	o.Agent = fakeAgent(t, elf.EM_X86_64, "newer")
	newer := build(o)
	if newer.Digest == first.Digest || newer.Manifest.Store != m.Store || newer.Manifest.Initrd == m.Initrd || count(t, runs) != 1 {
		t.Errorf("another agent: %+v, %d runs", newer.Manifest, count(t, runs))
	}
	o.Force = true
	if again := build(o); again.Digest != newer.Digest || count(t, runs) != 2 {
		t.Errorf("by force: %s and %s, %d runs", newer.Ref(), again.Ref(), count(t, runs))
	}

	removed, err := Prune(o.CacheDir, []string{inputs})
	if err != nil || len(removed) != 0 {
		t.Errorf("pruning what is used: %v, %v", removed, err)
	}
	removed, err = Prune(o.CacheDir, nil)
	if err != nil || len(removed) != 1 {
		t.Errorf("pruning: %v, %v", removed, err)
	}
	build(Options{Arch: o.Arch, Agent: o.Agent, CacheDir: o.CacheDir, newRoom: bareRoom})
	if count(t, runs) != 3 {
		t.Errorf("%d runs after pruning", count(t, runs))
	}
}

func TestFailedInstallationQuotesItsOutput(t *testing.T) {
	fakeMmdebstrap(t, `i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo "line $i" >&2; done
echo "E: Unable to locate package nonsense" >&2; exit 25`)
	cache := t.TempDir()
	_, err := Build(t.Context(), Options{Arch: "x86_64", Agent: fakeAgent(t, elf.EM_X86_64, ""), CacheDir: cache, newRoom: bareRoom})
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range []string{"exit status 25", filepath.Join(cache, logFile), "line 40", "Unable to locate package nonsense"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not contain %q: %v", part, err)
		}
	}
	if strings.Contains(err.Error(), "line 2\n") || strings.Contains(err.Error(), "reading the system") {
		t.Errorf("the error says too much: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(cache, rootfsParent, ".*")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestInterruptedBuildLeavesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "started")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	started, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer started.Close()
	fakeMmdebstrap(t, fmt.Sprintf("echo >%s; exec sleep 600", path))
	cache := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _ = started.Read(make([]byte, 1)) // an error is the end of the test
		cancel()
	}()
	_, err = Build(ctx, Options{Arch: "x86_64", Agent: fakeAgent(t, elf.EM_X86_64, ""), CacheDir: cache, newRoom: bareRoom})
	if err == nil || !strings.Contains(err.Error(), "interrupted") || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(cache, "*", "*")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestAgentIsCheckedFirst(t *testing.T) {
	runs := fakeMmdebstrap(t, "exit 1")
	text := filepath.Join(t.TempDir(), "agent")
	if err := os.WriteFile(text, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for want, agent := range map[string]string{
		"is not there [find-agent]":   "/nonexistent/agent",
		"is not a Linux program":      text,
		"is for EM_AARCH64":           fakeAgent(t, elf.EM_AARCH64, ""),
		"needs the dynamic linker /l": "/bin/sh",
	} {
		_, err := Build(t.Context(), Options{Arch: "x86_64", Agent: agent, CacheDir: t.TempDir()})
		if err == nil || !strings.Contains(fmt.Sprint(err, remedy.Of(err)), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if n := count(t, runs); n != 0 {
		t.Errorf("mmdebstrap ran %d times", n)
	}
}

func TestMissingMmdebstrapNamesThePackage(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Build(t.Context(), Options{Arch: "x86_64", Agent: fakeAgent(t, elf.EM_X86_64, ""), CacheDir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "apt-get install mmdebstrap") {
		t.Errorf("got %v", err)
	}
}

func ExampleBuild() {
	dir, err := Build(context.Background(), Options{
		Arch: "x86_64", With: []string{"claude-code"}, Packages: []string{"golang"},
		Agent: "/nonexistent/sandbox-agent", CacheDir: "/var/cache/sandbox/images",
	})
	fmt.Println(dir, err)
	// Output: the guest's agent /nonexistent/sandbox-agent is not there
}
