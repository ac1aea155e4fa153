package environ

import (
	"slices"
	"testing"
)

func TestOnlyWhatIsNamedIsPicked(t *testing.T) {
	environ := []string{"HOME=/root", "API_KEY=secret", "LC_ALL=C", "LC_=", "LCD=no", "https_proxy=http://p", "HTTPS_PROXY=http://q", "HOMES=x", "EMPTY="}
	got := Pick(environ, append(Proxies(), "HOME", "LC_*", "EMPTY")...)
	want := []string{"HOME=/root", "LC_ALL=C", "LC_=", "https_proxy=http://p", "HTTPS_PROXY=http://q", "EMPTY="}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
