package main

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// TestWrappers reads what NixOS's script would do, as the build writes it down.
func TestWrappers(t *testing.T) {
	program := filepath.Join(t.TempDir(), "security-wrapper")
	writeFile(t, program, "wraps")
	r := decodeRoot(t, `{"users": [{"name": "root", "uid": 0, "group": "root"}, {"name": "bob", "uid": 5, "group": "mail"}],
		"groups": [{"name": "root", "gid": 0}, {"name": "mail", "gid": 6}, {"name": "shadow", "gid": 7}], "wrappers": "/nix/var/wrappers"}`)
	const steps = `chmod 755 /run/wrappers
chmod a+rx wrappers
cp PROGRAM wrappers/sudo
chmod 0000 wrappers/sudo
chown root:root wrappers/sudo
chmod u+s,g-s,u+rx,g+x,o+x wrappers/sudo
cp PROGRAM wrappers/ping
chmod 0000 wrappers/ping
chown bob:mail wrappers/ping
setcap cap_setpcap,cap_net_raw+ep wrappers/ping
chmod a+rx wrappers/ping
cp PROGRAM wrappers/mail
chmod 0000 wrappers/mail
chown root:mail wrappers/mail
chmod u-s,g+s,0750 wrappers/number
chmod u-s,g+s,ug+rx,o= wrappers/mail
ln --symbolic wrappers /run/wrappers/bin
`
	files := map[string]file{}
	err := r.wrappers(files, strings.ReplaceAll(steps, "PROGRAM", program))
	if err == nil || !strings.Contains(err.Error(), `number: the mode "u-s,g+s,0750" is not understood`) {
		t.Errorf("a mode that mixes both kinds: %v", err)
	}
	files = map[string]file{}
	if err := r.wrappers(files, strings.ReplaceAll(strings.ReplaceAll(steps, "PROGRAM", program), "chmod u-s,g+s,0750 wrappers/number\n", "")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"sudo": "ur-x--x--x 0:0 wraps",
		"ping": "-r-xr-xr-x 5:6 wraps",
		"mail": "gr-xr-x--- 0:6 wraps",
	} {
		f := files["nix/var/wrappers/bin/"+name]
		if got := fmt.Sprintf("%v %d:%d %s", f.mode, f.uid, f.gid, f.data); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if len(files) != 3 {
		t.Errorf("there should be three: %v", files)
	}
	if err := r.wrappers(files, "chown nobody:root wrappers/su\n"); err == nil || err.Error() != `su: there is no user "nobody"` {
		t.Errorf("one of nobody who exists: %v", err)
	}
}

func TestModesAreChmods(t *testing.T) {
	for _, c := range []struct {
		from   fs.FileMode
		change string
		want   string
	}{
		{0, "u+rx,g+x,o+x", "-r-x--x--x"},
		{0o777, "go-wx", "-rwxr--r--"},
		{0o777 | fs.ModeSetuid, "u-s,a=r", "-r--r--r--"},
		{0, "4750", "urwxr-x---"},
		{0, "ug+s,o+t", "ugt---------"},
		{0o644, "o=", "-rw-r-----"},
	} {
		if got, err := changeMode(c.from, c.change); err != nil || got.String() != c.want {
			t.Errorf("%v with %s is %v, %v; want %s", c.from, c.change, got, err, c.want)
		}
	}
	for _, change := range []string{"", "+x", "u", "z+x", "u+X", "g=u", "17777"} {
		if got, err := changeMode(0o600, change); err == nil {
			t.Errorf("%q is not for us, and gave %v", change, got)
		}
	}
}
