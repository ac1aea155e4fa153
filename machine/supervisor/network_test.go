package supervisor

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/upstream"
)

func TestPasswordOfAProxyIsNotWrittenDown(t *testing.T) {
	const secret = "s3cret"
	l := newLife(t, func(c *machine.Config) { c.Network, c.AllowWeak = network.ModePublic, true })
	l.v.upstream = upstream.One("http://u:" + secret + "@127.0.0.1:3128")
	l.begin()
	l.await(machine.StageAgent)
	st := l.s.State()
	if st.Upstream != "http://127.0.0.1:3128" {
		t.Errorf("the proxy is shown as %q", st.Upstream)
	}
	l.v.mu.Lock() // so that no state is half written
	defer l.v.mu.Unlock()
	files := []string{fmt.Sprintf("/proc/%d/cmdline", st.Gateway), fmt.Sprintf("/proc/%d/environ", st.Gateway)}
	err := filepath.WalkDir(l.s.Files().Dir(), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil && !os.IsPermission(err) {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte(secret)) {
			t.Errorf("the password is in %s", file)
		}
	}
}

func TestProxyThatCannotBeUsedIsNoted(t *testing.T) {
	l := newLife(t, func(c *machine.Config) { c.Network, c.AllowWeak = network.ModePublic, true })
	l.v.upstream = upstream.One("ftp://u:s3cret@127.0.0.1:3128")
	l.begin()
	l.await(machine.StageAgent)
	if st := l.s.State(); st.Upstream != "" {
		t.Errorf("the proxy is shown as %q", st.Upstream)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if notes := strings.Join(l.notes, "\n"); !strings.Contains(notes, "without a proxy") || strings.Contains(notes, "s3cret") {
		t.Errorf("the notes are %q", l.notes)
	}
}
