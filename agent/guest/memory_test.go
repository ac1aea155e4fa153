//go:build linux

package guest

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

func TestWhatIsWrittenIntoMemoryLeavesRoomForTheSystem(t *testing.T) {
	for _, m := range []memory{256 << 20, 1 << 30, 64 << 30} {
		options := []string{m.root(), m.limits(runtimeShare)}
		for _, mount := range m.kernelMounts() {
			if mount.kind == "tmpfs" || mount.kind == "devtmpfs" {
				options = append(options, mount.options)
			}
		}
		taken := m / 100 * sharedSystemV
		for _, option := range options {
			taken += sizeOption(t, m, option)
		}
		if left := m - taken; left < m/5 {
			t.Errorf("of %d MiB, %d are left when all is full", m>>20, left>>20)
		}
	}
}

// sizeOption returns the bytes that a tmpfs with the options may hold. One
// without limits would have half of the memory, and as many files as fit.
func sizeOption(t *testing.T, m memory, options string) memory {
	t.Helper()
	size := regexp.MustCompile(`\bsize=(\d+)(%?)`).FindStringSubmatch(options)
	if size == nil || !regexp.MustCompile(`\bnr_inodes=[1-9]`).MatchString(options) {
		t.Fatalf("%q lacks a limit", options)
	}
	number, err := strconv.ParseUint(size[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if size[2] == "%" {
		return m / 100 * memory(number)
	}
	return memory(number)
}

func TestLimitsAreOnlyRaised(t *testing.T) {
	sys := t.TempDir()
	files := map[string][2]string{ // before and after
		"fs/inotify/max_user_watches":   {"8192\n", "524288"},
		"fs/inotify/max_user_instances": {"4096\n", "4096\n"},
		"vm/max_map_count":              {"65530\n", "1048576"},
		"kernel/shmall":                 {"18446744073692774399\n", strconv.Itoa(1 << 30 / 100 * sharedSystemV / os.Getpagesize())},
	}
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(sys, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(sys, name), text[0])
	}
	if err := memory(1 << 30).setLimits(sys); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if got, err := os.ReadFile(filepath.Join(sys, name)); err != nil || string(got) != text[1] {
			t.Errorf("%s is %q, want %q, %v", name, got, text[1], err)
		}
	}
}

func TestFileThatCannotBeReplacedStaysAsItIs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := replaceFile(file, "old", 0o644); err != nil {
		t.Fatal(err)
	}
	// As where there is no room: the fresh file cannot be written.
	if err := os.Mkdir(file+".sandbox-agent", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := replaceFile(file, "old", 0o644); err != nil {
		t.Errorf("a file that is right already: %v", err)
	}
	if err := replaceFile(file, "new", 0o644); err == nil {
		t.Error("the failure went unnoticed")
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "old" {
		t.Errorf("the file holds %q, %v", got, err)
	}
}
