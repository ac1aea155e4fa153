package machine

import (
	"slices"
	"testing"

	"github.com/sourcery-zone/sandbox/virtiofs"
)

func TestWhereCachesAreInTheGuest(t *testing.T) {
	c := testConfig("a")
	c.Shares = []virtiofs.Share{{Target: "/home/agent/app"}, {Target: "/home/agent/lib"}}
	for given, want := range map[string]string{
		"node_modules":   "/home/agent/app/node_modules",
		"./web/target/":  "/home/agent/app/web/target",
		"~/.npm":         "/home/agent/.npm",
		"/var/cache/apt": "/var/cache/apt",
		"../x":           "/home/agent/x",
	} {
		if got := c.cachePath(given, "/home/agent"); got != want {
			t.Errorf("%q is %q, want %q", given, got, want)
		}
	}
	c.Shares, c.AgentSessions = []virtiofs.Share{{File: true, Source: "/f", Target: "/f"}, {Source: "/sessions", Target: "/s"}}, "/sessions"
	if got := c.cachePath(".npm", "/home/agent"); got != "/home/agent/.npm" {
		t.Errorf("without a share: %q", got)
	}
}

func TestCachesThatHideWhatIsNeededAreRefused(t *testing.T) {
	for _, test := range []struct {
		caches []string
		ok     bool
	}{
		{[]string{"/home/agent/app/node_modules", "/home/agent/.npm"}, true},
		{[]string{"/"}, false},
		{[]string{"/usr"}, false},
		{[]string{"/home/agent/app"}, false},
		{[]string{"/home/agent"}, false}, // a share is in it
		{[]string{"/home/agent/.npm", "/home/agent/.npm"}, false},
		{[]string{"/home/agent/.npm", "/home/agent/.npm/x"}, false},
		{[]string{"/home/agent/.npm/x", "/home/agent/.npm"}, false},
		{[]string{"node_modules"}, false},
		{[]string{"/home/agent/clone/node_modules"}, false},
		{slices.Repeat([]string{"/x"}, maxCaches+1), false},
	} {
		c := testConfig("a")
		c.Project, c.Caches = "/src/app", test.caches
		c.Shares = []virtiofs.Share{{Target: "/home/agent/app"}, {Target: "/home/agent/clone", Clone: virtiofs.CloneHead}}
		if err := c.validateCaches(); (err == nil) != test.ok {
			t.Errorf("%q: %v", test.caches, err)
		}
	}
	c := testConfig("a")
	c.Caches = []string{"/x"}
	if c.validateCaches() == nil {
		t.Error("a cache of no project is possible")
	}
	c.Project, c.ForkOf = "/src/app", "b"
	if c.KeepsCaches() {
		t.Error("what a fork tries is kept")
	}
}
