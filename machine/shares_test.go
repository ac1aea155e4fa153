package machine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/internal/hostdir"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// A host that takes its time to free a guest's memory must not make a crash of
// an orderly end.
func TestFileServerThatWasLeftIsBelieved(t *testing.T) {
	if graceAfter(nil) != leaveGrace || graceAfter(errors.New("killed")) != followGrace {
		t.Error("a server that was left is not waited for any longer than one that was killed")
	}
}

// sharing makes a sandbox that has the directory as a share.
func sharing(t *testing.T, h *Host, dir string) *Sandbox {
	t.Helper()
	share, err := virtiofs.Share{Source: dir, Target: "/home/agent/x"}.Admit(h.ShareRules())
	if err != nil {
		t.Fatal(err)
	}
	c := testConfig("a")
	c.Shares = []virtiofs.Share{share}
	s, err := h.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func checkNow(t *testing.T, h *Host, s *Sandbox) error {
	t.Helper()
	c, err := s.Config()
	if err != nil {
		t.Fatal(err)
	}
	return h.checkShares(c)
}

func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := hostdir.Resolve(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestChangedShareIsRefusedUntilItIsAccepted(t *testing.T) {
	h := testHost(t)
	base := tempDir(t)
	dir := filepath.Join(base, "it's here")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := sharing(t, h, dir)
	if err := checkNow(t, h, s); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Rename(dir, base+"/kept"), os.Mkdir(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	err := checkNow(t, h, s)
	if err == nil || !strings.Contains(err.Error(), "another directory now") || !strings.Contains(err.Error(), `sandbox share accept a '`+base+`/it'"'"'s here'`) {
		t.Fatalf("got %v", err)
	}
	if _, err := s.AcceptShares([]string{base}, false); err == nil || !strings.Contains(err.Error(), "has no share of "+base) {
		t.Errorf("accepting what is no share: %v", err)
	}
	if _, err := s.AcceptShares([]string{dir}, false); err != nil {
		t.Fatal(err)
	}
	if err := checkNow(t, h, s); err != nil {
		t.Errorf("after it was accepted: %v", err)
	}
}

func TestAcceptedLinkIsJudgedByWhereItLeads(t *testing.T) {
	h := testHost(t)
	base := tempDir(t)
	dir := filepath.Join(base, "project")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := sharing(t, h, dir)
	if err := errors.Join(os.Remove(dir), os.Symlink("/etc", dir)); err != nil {
		t.Fatal(err)
	}
	if err := checkNow(t, h, s); err == nil || !strings.Contains(err.Error(), `symbolic link now, to "/etc"`) {
		t.Errorf("a link in its place: %v", err)
	}
	if _, err := s.AcceptShares([]string{dir}, false); err == nil || !strings.Contains(err.Error(), "configuration of the host") {
		t.Errorf("a link to /etc was accepted: %v", err)
	}
	accepted, err := s.AcceptShares([]string{dir}, true)
	if err != nil || accepted[0].Source != "/etc" || !accepted[0].AllowDangerous {
		t.Errorf("with permission: %+v, %v", accepted, err)
	}
	if err := checkNow(t, h, s); err != nil {
		t.Error(err)
	}
}

// What was allowed once is allowed for that directory, and for no other of the
// same sandbox.
func TestDangerousShareOfAnOlderVersionIsJudged(t *testing.T) {
	h := testHost(t)
	c := testConfig("a")
	c.Shares = []virtiofs.Share{{Source: "/etc", Target: "/srv/etc"}}
	s, err := h.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkNow(t, h, s); err == nil || !strings.Contains(err.Error(), "sandbox share accept --allow-dangerous-share a /etc") {
		t.Errorf("got %v", err)
	}
}

func TestShareWithoutARecordIsRecordedAtItsStart(t *testing.T) {
	h := testHost(t)
	dir := tempDir(t)
	c := testConfig("a")
	c.Shares = []virtiofs.Share{{Source: dir, Target: "/srv/x"}}
	s, err := h.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	v := &supervisor{s: s, config: c}
	if err := v.recordShares(); err != nil {
		t.Fatal(err)
	}
	c, err = s.Config()
	if err != nil || c.Shares[0].Directory == (hostdir.Identity{}) || c.Shares[0] != v.config.Shares[0] {
		t.Errorf("kept: %+v, %v", c.Shares, err)
	}
}

func TestSharesThatTwoGuestsWriteTo(t *testing.T) {
	share := func(source string, readOnly bool) virtiofs.Share {
		return virtiofs.Share{Source: source, ReadOnly: readOnly}
	}
	ours := []virtiofs.Share{share("/src/app", false), share("/src/docs", false), share("/data", true), share("/src/application", false)}
	for source, want := range map[string]string{
		"/src/app": "/src/app", "/src/app/inner": "/src/app", "/src": "/src/app /src/docs /src/application", "/data": "", "/src/ap": "", "/": "/src/app /src/docs /src/application",
	} {
		if got := strings.Join(sharedForWriting(ours, []virtiofs.Share{share(source, false)}), " "); got != want {
			t.Errorf("another has %s: %q, want %q", source, got, want)
		}
		if got := sharedForWriting(ours, []virtiofs.Share{share(source, true)}); got != nil {
			t.Errorf("another only reads %s: %q", source, got)
		}
	}
}

// rm -rf and git clone while the guest runs leave it with a directory that is
// gone.
func TestDirectoryThatIsMadeAnewIsNoticed(t *testing.T) {
	h := testHost(t)
	dir := filepath.Join(tempDir(t), "project")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c, err := sharing(t, h, dir).Config()
	if err != nil {
		t.Fatal(err)
	}
	shown := []ServedShare{{Source: "/the/home"}, {Source: dir}}
	for _, step := range []struct {
		do   func() error
		want string
	}{
		{func() error { return nil }, ""},
		{func() error { return os.Rename(dir, dir+".kept") }, "is not there any more"},
		{func() error { return os.Mkdir(dir, 0o755) }, "is another directory now than the one that was shared"},
		{func() error { return errors.Join(os.Remove(dir), os.Rename(dir+".kept", dir)) }, ""},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		now, news := noteChanges(shown, c.Shares)
		if now[1].Changed != step.want || news != (shown[1].Changed != step.want) || now[0].Changed != "" {
			t.Errorf("%+v, news: %v; want %q", now, news, step.want)
		}
		shown = now
	}
	shown[1].Changed = "is not there any more"
	if got := shareChanged("a", shown[1]); got != dir+" is not there any more, but the guest has the old directory until it is started again: sandbox share accept a "+dir+" && sandbox restart a" {
		t.Error(got)
	}
}
