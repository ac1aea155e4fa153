package supervisor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/internal/hostdir"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// A host that takes its time to free a guest's memory must not make a crash of
// an orderly end.
func TestFileServerThatWasLeftIsBelieved(t *testing.T) {
	if graceAfter(nil) != leaveGrace || graceAfter(errors.New("killed")) != followGrace {
		t.Error("a server that was left is not waited for any longer than one that was killed")
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
	parent, err := hostdir.Resolve(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(parent, "project")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	share, err := virtiofs.Share{Source: dir, Target: "/srv/x"}.Admit(testHost(t).ShareRules())
	if err != nil {
		t.Fatal(err)
	}
	shown := []machine.ServedShare{{Source: "/the/home"}, {Source: dir}}
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
		now, news := noteChanges(shown, map[string]string{dir: share.Changed()})
		if now[1].Changed != step.want || news != (shown[1].Changed != step.want) || now[0].Changed != "" {
			t.Errorf("%+v, news: %v; want %q", now, news, step.want)
		}
		shown = now
	}
}
