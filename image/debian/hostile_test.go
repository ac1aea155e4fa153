package debian

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// secret is what the hostile package looks for.
const secret = "canary-in-the-coal-mine"

// TestHostilePackage installs a package whose script attacks this machine, as a build would: with mmdebstrap and dpkg.
// Without the room, for comparison, the same script gets what it wants.
func TestHostilePackage(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Run("an ordinary user", func(t *testing.T) { attackRoom(t) })
		return
	}
	t.Run("root", func(t *testing.T) { attackRoom(t) })
	t.Run("an ordinary user", attackAsNobody)
	t.Run("without the room", func(t *testing.T) {
		a := newAttack(t)
		r, err := bareRoom(a.dir, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.way.prefix = []string{"unshare", "--mount"} // for what mmdebstrap mounts
		r.script = strings.Replace(r.script, "exec", "export TOKEN="+secret+"; exec", 1)
		said := a.run(t, r, r.given())
		for _, want := range []string{
			"got the secret from its own environment", "/environ", "by the way out of the root directory", fmt.Sprintf("by /proc/%d/root", a.victim),
			"got to write beside", "got to kill",
		} {
			if !strings.Contains(said, want) {
				t.Errorf("the attack is weaker than it should be, without %q:\n%s", want, said)
			}
		}
	})
}

// attackRoom expects that the script gets nothing.
func attackRoom(t *testing.T) {
	a := newAttack(t)
	mmdebstrap, err := findMmdebstrap()
	if err != nil {
		t.Skip(err)
	}
	r, err := newRoom(a.dir, mmdebstrap, nil)
	if err != nil {
		t.Fatal(err)
	}
	said := a.run(t, r, "/tmp")
	if strings.Contains(said, "hostile: got") || !strings.Contains(said, "hostile: done") {
		t.Errorf("the script got something, or did not run:\n%s", said)
	}
	if err := unix.Kill(a.victim, 0); err != nil {
		t.Errorf("the process outside is gone: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(a.public, "*.hostile")); len(left) > 0 {
		t.Errorf("the script wrote %v", left)
	}
	if err := r.close(); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(a.dir, roomPrefix+"*")); len(left) > 0 {
		t.Errorf("the room is still there: %v", left)
	}
}

// attack is the hostile script and its targets.
type attack struct {
	dir    string // for rooms
	public string // where everybody may read
	script string
	files  []string // with the secret
	victim int      // process id
}

// hostileVariable names the script where another user runs this test.
const hostileVariable = "SANDBOX_TEST_HOSTILE"

func newAttack(t *testing.T) attack {
	t.Helper()
	for _, tool := range []string{"dpkg", "dpkg-deb", "mmdebstrap"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not here, by which packages are installed: run make setup on Debian or Ubuntu", tool)
		}
	}
	t.Setenv("SANDBOX_TEST_TOKEN", secret)
	public := publicDir(t)
	a := attack{dir: t.TempDir(), public: public, script: buildHostile(t)}
	a.files = []string{filepath.Join(public, "read-by-all"), filepath.Join(t.TempDir(), "read-by-us")}
	for i, name := range a.files {
		if err := os.WriteFile(name, []byte(secret), []os.FileMode{0o644, 0o600}[i]); err != nil {
			t.Fatal(err)
		}
	}
	sleeper := exec.Command("sleep", "600")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = sleeper.Process.Kill(), sleeper.Wait() })
	a.victim = sleeper.Process.Pid
	return a
}

// publicDir is a directory that other users may enter, as t.TempDir is not.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sandbox-hostile-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// buildHostile builds the script, unless that was done before another user was to run this test.
func buildHostile(t *testing.T) string {
	t.Helper()
	if program := os.Getenv(hostileVariable); program != "" {
		return program
	}
	program := filepath.Join(t.TempDir(), "hostile")
	build := exec.Command("go", "build", "-o", program, "./testdata/hostile")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // there are no libraries in the new system
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the hostile script: %v\n%s", err, out)
	}
	return program
}

// targets is the file in which the script finds what to look for.
func (a attack) targets(t *testing.T) string {
	t.Helper()
	var root unix.Stat_t
	if err := unix.Stat("/", &root); err != nil {
		t.Fatal(err)
	}
	keyring, _ := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false) // 0 is none
	return strings.Join(append([]string{
		secret, strconv.Itoa(a.victim), strconv.Itoa(keyring), strconv.FormatUint(root.Dev, 10),
	}, a.files...), "\n")
}

// run installs the package in the room and returns what was said. given is what the room calls r.given().
func (a attack) run(t *testing.T, r *room, given string) string {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	a.pack(t, filepath.Join(r.given(), "hostile.deb"))
	mmdebstrap, err := exec.LookPath("mmdebstrap")
	if err != nil {
		t.Fatal(err)
	}
	b := bootstrap{path: mmdebstrap, room: r, log: log}
	cmd, _ := b.command(t.Context(), []string{
		"--mode=root", "--variant=custom", "--format=null", "--skip=setup,update,download,cleanup,check/qemu,chroot/mount/sys",
		`--setup-hook=mkdir -p "$1/dev/pts" "$1/dev/shm" "$1/proc" "$1/var/lib/dpkg/updates" "$1/var/lib/dpkg/info" "$1/var/lib/dpkg/triggers" && : >"$1/var/lib/dpkg/status"`,
		`--customize-hook=dpkg --root="$1" --force-bad-path --install ` + given + "/hostile.deb",
		"trixie", os.DevNull,
	})
	if err := r.start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		data, _ := os.ReadFile(log.Name())
		t.Fatalf("mmdebstrap: %v\n%s", err, data)
	}
	data, err := os.ReadFile(log.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// pack makes a Debian package with the script.
func (a attack) pack(t *testing.T, deb string) {
	t.Helper()
	script, err := os.ReadFile(a.script)
	if err != nil {
		t.Fatal(err)
	}
	tree := t.TempDir()
	if err := os.Mkdir(filepath.Join(tree, "DEBIAN"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"targets":         a.targets(t),
		"DEBIAN/postinst": string(script),
		"DEBIAN/control":  "Package: hostile\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\nDescription: means ill\n",
	} {
		mode := os.FileMode(0o644)
		if name == "DEBIAN/postinst" {
			mode = 0o755
		}
		if err := os.WriteFile(filepath.Join(tree, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, deb).CombinedOutput(); err != nil {
		t.Fatalf("packing: %v\n%s", err, out)
	}
	if err := os.Chmod(deb, 0o644); err != nil {
		t.Fatal(err)
	}
}

// attackAsNobody runs this test as a user who is given ids in files of its own.
func attackAsNobody(t *testing.T) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(buildHostile(t))
	if err != nil {
		t.Fatal(err)
	}
	dir := publicDir(t)
	for name, data := range map[string][]byte{"test": self, "hostile": script, "ids": []byte("nobody:1879113728:65536\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		if _, err := os.Stat(file); err != nil {
			t.Skipf("%v: make setup installs the programs that need it", err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "tmp"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "tmp"), 0o777); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--mount", "sh", "-euc", `
		mount --bind ids /etc/subuid
		mount --bind ids /etc/subgid
		exec setpriv --reuid=nobody --regid=nogroup --clear-groups ./test -test.v -test.run='TestHostilePackage/an_ordinary_user$'`)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), hostileVariable+"="+filepath.Join(dir, "hostile"), "TMPDIR="+filepath.Join(dir, "tmp"), "HOME=/nonexistent")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestHostilePackage/an_ordinary_user") {
		t.Errorf("%v\n%s", err, out)
	}
}
