//go:build linux

package guest

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDiskIsJudgedByItsSuperblock(t *testing.T) {
	superblock := func(state uint16) []byte {
		head := make([]byte, headSize)
		binary.LittleEndian.PutUint16(head[1024+56:], 0xef53)
		binary.LittleEndian.PutUint16(head[1024+58:], state)
		return head
	}
	foreign := make([]byte, headSize)
	foreign[510], foreign[511] = 0x55, 0xaa // a partition table
	for name, test := range map[string]struct {
		head []byte
		want diskCondition
	}{
		"never used":          {make([]byte, headSize), diskBlank},
		"in use, or crashed":  {superblock(0), diskSound},
		"cleanly unmounted":   {superblock(1), diskSound},
		"errors were noticed": {superblock(1 | 2), diskDamaged},
		"somebody else's":     {foreign, diskForeign},
	} {
		if got := judge(test.head); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}

func TestDiskIsFoundByItsSerialNumber(t *testing.T) {
	blocks := t.TempDir()
	for name, serial := range map[string]string{"vda": "store", "vdb": "disk\n", "vdc": ""} {
		if err := os.MkdirAll(filepath.Join(blocks, name), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(blocks, name, "serial"), serial)
	}
	if err := os.Mkdir(filepath.Join(blocks, "loop0"), 0o755); err != nil { // has no serial number
		t.Fatal(err)
	}
	for serial, want := range map[string]string{"disk": "vdb", "store": "vda", "dis": ""} {
		if got := findSerial(blocks, serial); got != want {
			t.Errorf("the device with %q is %q, want %q", serial, got, want)
		}
	}
}

func TestOnlyOldTmpIsRemoved(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{oldTmp + "1/tmp/deep/er", oldTmp + "2", "tmp", "data", "lost+found"} {
		if err := os.MkdirAll(filepath.Join(dir, path), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/", filepath.Join(dir, oldTmp+"1/tmp/root")); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := removeOldTmp(root); err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "*"))
	for i := range left {
		left[i] = filepath.Base(left[i])
	}
	if got := strings.Join(left, " "); got != "data lost+found tmp" {
		t.Errorf("left: %s", got)
	}
}
