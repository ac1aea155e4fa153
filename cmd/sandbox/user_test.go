package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/machine/layout"
)

// TestOrdinaryUser runs the core of all this as somebody who is not root and
// has nothing but a home.
func TestOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the other tests run as an ordinary user already: run this one as root")
	}
	u := newUser(t)
	note := "/dev/kvm"
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err == nil {
		f.Close()
		if info, err := os.Stat("/dev/kvm"); err == nil && info.Mode().Perm()&0o006 == 0 {
			note = "usermod -aG" // the remedy
		}
	}
	u.write("project/given", "from the host\n")
	u.shareWithTeam("project/team")

	out, code := u.run("run", "--rm", "--share", "project", "--", "sh", "-c", "cat given; stat -c %U given; echo made >made; echo new >team/new; echo more >>team/old; exit 7")
	if code != 7 || !strings.Contains(out, "from the host\nagent\n") {
		t.Errorf("run: exit code %d, want 7:\n%s", code, out)
	}
	if strings.Contains(out, "KVM is not used") && !strings.Contains(out, note) {
		t.Errorf("the note about KVM has no remedy (%s):\n%s", note, out)
	}
	info, err := os.Stat(filepath.Join(u.home, "project", "made"))
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); int(st.Uid) != u.id || int(st.Gid) != u.id {
		t.Errorf("what the guest makes belongs to %d:%d, not to user %d", st.Uid, st.Gid, u.id)
	}

	if old, err := os.ReadFile(filepath.Join(u.home, "project/team/old")); err != nil || string(old) != "of root\nmore\n" {
		t.Errorf("what the user may write by a group has %q, %v", old, err)
	}
	if _, err := os.Stat(filepath.Join(u.home, "project/team/new")); err != nil {
		t.Error(err)
	}

	u.ok("run", "-d", "--name", "mine", "--share", "project", "--disk", "1G")
	if out := u.ok("exec", "mine", "--", "sh", "-c", "id -un; cat made; echo kept >~/note"); out != "agent\nmade\n" {
		t.Errorf("exec: %q", out)
	}
	u.noProcessOfRoot()
	u.ok("cp", "mine:project/given", "back")
	u.ok("cp", "back", "mine:/tmp/again")
	u.ok("pause", "mine")
	u.ok("resume", "mine")
	if out := u.ok("exec", "mine", "--", "cat", "/tmp/again"); out != "from the host\n" {
		t.Errorf("after copies to and fro: %q", out)
	}
	if out := u.ok("stats", "--json", "mine"); !strings.Contains(out, `"name": "virtiofsd"`) || strings.Contains(out, "problem") {
		t.Errorf("stats:\n%s", out)
	}
	u.ok("exec", "--user", "root", "mine", "--", "sh", "-c", "echo installed >/usr/local/bin/thing")
	u.ok("restart", "mine")
	if out := u.ok("exec", "mine", "--", "cat", "/usr/local/bin/thing"); out != "installed\n" {
		t.Errorf("the disk after a restart: %q", out)
	}
	u.ok("snapshot", "save", "--with-home", "mine", "one")
	u.ok("snapshot", "restore", "mine", "one")
	u.ok("fork", "--name", "yours", "mine@one")
	if out := u.ok("exec", "yours", "--", "sh", "-c", "cat ~/note; hostname"); out != "kept\nyours\n" {
		t.Errorf("the fork: %q", out)
	}
	u.ok("rm", "--force", "yours")
	u.ok("run", "-d", "--warm", "--no-home", "--name", "yours")
	u.ok("fork", "--name", "theirs", "yours") // which has its memory in common
	if out := u.ok("exec", "theirs", "--", "hostname"); out != "theirs\n" {
		t.Errorf("the fork of one without a home: %q", out)
	}
	u.ok("rm", "--force", "yours", "theirs")
	u.ok("kill", "mine")
	// A layer whose header says that the data is in another file, as a QEMU that was taken over may leave it.
	layers, err := filepath.Glob(filepath.Join(u.home, ".local/state/sandbox/mine/disk/*.qcow2"))
	if err != nil || len(layers) == 0 {
		t.Fatalf("the disk has no layers: %v", err)
	}
	layer, err := os.OpenFile(layers[len(layers)-1], os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := layer.WriteAt([]byte{1 << 2}, 79); err != nil { // the least byte of its incompatible features
		t.Fatal(err)
	}
	layer.Close()
	if out, code := u.run("start", "mine"); code == 0 || !strings.Contains(out, "sandbox reset mine") {
		t.Errorf("a start with a hostile layer: exit code %d\n%s", code, out)
	}
	u.ok("reset", "mine")
	if out := u.ok("ls"); !strings.Contains(out, "stopped") {
		t.Errorf("ls after stop:\n%s", out)
	}
	if note, err := os.ReadFile(filepath.Join(u.home, ".local/state/sandbox/mine/home/note")); err != nil || string(note) != "kept\n" {
		t.Errorf("the home has %q, %v", note, err)
	}
	u.ok("rm", "mine")
	if out := u.ok("ls", "-q"); out != "" {
		t.Errorf("ls after rm:\n%s", out)
	}
	u.processes().waitGone(t) // the supervisor gives the lock back just before its end
}

// user is somebody whose id nobody has, with a home and a store of images.
type user struct {
	t    *testing.T
	id   int
	home string
	env  []string
	bin  string
}

// team is a further group of the user.
func (u *user) team() uint32 { return uint32(u.id) + 1 }

// shareWithTeam makes a directory of root that the user may write to by a group.
func (u *user) shareWithTeam(name string) {
	u.t.Helper()
	dir := filepath.Join(u.home, name)
	file := filepath.Join(dir, "old")
	if err := errors.Join(
		os.Mkdir(dir, 0o700), os.WriteFile(file, []byte("of root\n"), 0o600),
		os.Chown(dir, 0, int(u.team())), os.Chown(file, 0, int(u.team())),
		os.Chmod(dir, 0o770), os.Chmod(file, 0o660),
	); err != nil {
		u.t.Fatal(err)
	}
}

func newUser(t *testing.T) *user {
	t.Helper()
	images := guestDirs(t)
	// Above what accounts and subuid(5) use, and another one for each test run.
	id := 0x68000000 + os.Getpid()
	base, err := os.MkdirTemp("", "u") // short, and to be entered by the user
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	u := &user{t: t, id: id, home: filepath.Join(base, "home"), bin: filepath.Join(base, "sandbox")}
	runtime := filepath.Join(base, "run")
	for _, dir := range []string{u.home, runtime, filepath.Join(u.home, "project")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile(filepath.Join(buildBinaries(t), "sandbox"))
	if err == nil {
		err = os.WriteFile(u.bin, program, 0o755)
	}
	if err == nil {
		err = os.Chmod(base, 0o711)
	}
	if err != nil {
		t.Fatal(err)
	}
	u.installImage(images)
	for _, dir := range []string{u.home, runtime} {
		u.giveAll(dir)
	}
	u.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + u.home, "XDG_RUNTIME_DIR=" + runtime}
	t.Cleanup(func() {
		for name := range strings.FieldsSeq(u.ok("ls", "-q")) {
			u.run("rm", "--force", name)
		}
	})
	return u
}

// installImage makes the default image, or the one of SANDBOX_IMAGE, the user's.
func (u *user) installImage(from layout.Dirs) {
	u.t.Helper()
	theirs, err := image.OpenStore(from.Images())
	if err != nil {
		u.t.Fatal(err)
	}
	img, err := theirs.Get(os.Getenv("SANDBOX_IMAGE"))
	if err != nil {
		u.t.Fatal(err)
	}
	ours, err := image.OpenStore(filepath.Join(u.home, ".local/share/sandbox/images"))
	if err != nil {
		u.t.Fatal(err)
	}
	if _, err := ours.Install(u.t.Context(), img.Dir); err != nil {
		u.t.Fatal(err)
	}
}

// giveAll gives the directories below dir to the user, and the files too unless
// they are an image's: those may be hard links to root's, which all may read.
func (u *user) giveAll(dir string) {
	u.t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if st := info.Sys().(*syscall.Stat_t); !d.IsDir() && st.Nlink > 1 {
			return nil
		}
		return os.Lchown(path, u.id, u.id)
	})
	if err != nil {
		u.t.Fatal(err)
	}
}

func (u *user) write(path, text string) {
	u.t.Helper()
	path = filepath.Join(u.home, path)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		u.t.Fatal(err)
	}
	if err := os.Chown(path, u.id, u.id); err != nil {
		u.t.Fatal(err)
	}
}

// run returns what the program wrote and its exit code.
func (u *user) run(args ...string) (string, int) {
	u.t.Helper()
	cmd := exec.Command(u.bin, args...)
	cmd.Dir, cmd.Env = u.home, u.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(u.id), Gid: uint32(u.id), Groups: []uint32{u.team()}}}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if err != nil && cmd.ProcessState == nil {
		u.t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

func (u *user) ok(args ...string) string {
	u.t.Helper()
	out, code := u.run(args...)
	if code != 0 {
		u.t.Fatalf("sandbox %s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// processes gets hold of all that run as the user.
func (u *user) processes() pidfds {
	u.t.Helper()
	fds := make(pidfds)
	for _, pid := range allProcesses() {
		dir := filepath.Join("/proc", strconv.Itoa(pid))
		info, err := os.Stat(dir)
		if err != nil || int(info.Sys().(*syscall.Stat_t).Uid) != u.id {
			continue
		}
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			fds[pid] = os.NewFile(uintptr(fd), dir)
		}
	}
	return fds
}

// noProcessOfRoot checks that nothing set-uid has helped.
func (u *user) noProcessOfRoot() {
	u.t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		u.t.Fatal(err)
	}
	for _, path := range lines {
		line, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(line, []byte(u.home)) {
			continue
		}
		if info, err := os.Stat(filepath.Dir(path)); err == nil && int(info.Sys().(*syscall.Stat_t).Uid) != u.id {
			u.t.Errorf("%s is not the user's: %q", path, line)
		}
	}
}
