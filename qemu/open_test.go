package qemu

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sourcery-zone/sandbox/internal/confine"
)

func TestOpenedFilesReplacePaths(t *testing.T) {
	dir, err := os.MkdirTemp("", "q") // short: a socket is in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	write := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	c := minimal()
	c.Kernel, c.Initrd = write("kernel"), write("init rd")
	c.Drives = []Drive{
		{ID: "store", Path: write("store"), Format: "raw", ReadOnly: true},
		{ID: "disk", Path: filepath.Join(dir, "disk"), Format: "qcow2", Backing: []string{filepath.Join(dir, "below")}},
	}
	if err := errors.Join(CreateDisk(filepath.Join(dir, "below"), 64<<20), CreateLayer(filepath.Join(dir, "disk"), "below", 64<<20)); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "fs0.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c.Shares = []Share{{Tag: "home", Socket: socket}}
	passed := func() *Files {
		f := &Files{}
		f.lend(confine.File{File: os.Stdin})
		return f
	}
	caps := capabilities(t, "x86_64-10.0")
	open, in, err := c.inherit(passed(), caps)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	args, err := open.Args(caps)
	if err != nil {
		t.Fatal(err)
	}
	line := ShellQuote(args)
	if strings.Contains(line, dir) {
		t.Errorf("QEMU is still to open a path: %s", line)
	}
	for _, part := range []string{
		"-kernel /proc/self/fd/4", "-initrd /proc/self/fd/5", "-add-fd fd=6,set=1", `"filename":"/dev/fdset/1"`,
		"-add-fd fd=7,set=2", `"filename":"/dev/fdset/2"`, "-add-fd fd=8,set=3", `"filename":"/dev/fdset/3"`, "socket,id=fs0,fd=9",
	} {
		if !strings.Contains(line, part) {
			t.Errorf("%q is not in %s", part, line)
		}
	}
	for i, name := range []string{"kernel", "init rd", "store", "below", "disk"} {
		got, err := in.list[i+1].Stat()
		want, wantErr := os.Stat(filepath.Join(dir, name))
		if err != nil || wantErr != nil || !os.SameFile(got, want) {
			t.Errorf("descriptor %d is not of %q: %v, %v", i+4, name, err, wantErr)
		}
	}
	if got, want := Redirections(in.listed), " 4<"+dir+"/kernel 5<'"+dir+"/init rd' 6<"+dir+"/store 7<"+dir+"/below 8<>"+dir+"/disk"; got != want {
		t.Errorf("redirections %q, want %q", got, want)
	}
	if info, err := os.Stat(c.Kernel); err != nil || info.Mode().Perm()&0o004 == 0 {
		t.Errorf("another user could not open the kernel: %v, %v", info.Mode(), err)
	}
	for _, path := range []string{c.Drives[0].Path, c.Drives[1].Path, c.Drives[1].Backing[0]} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 || int(info.Sys().(*syscall.Stat_t).Uid) != os.Getuid() {
			t.Errorf("QEMU's user could open %s: %v, %v", path, info.Mode(), err)
		}
	}

	c.Initrd = filepath.Join(dir, "none")
	unfinished := passed()
	defer unfinished.Close()
	if _, _, err := c.inherit(unfinished, caps); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}
