package snapshot

import (
	"slices"
	"testing"

	"github.com/sourcery-zone/sandbox/virtiofs"
)

func TestPlacesFollowTheirShares(t *testing.T) {
	a, b := virtiofs.Share{Source: "/a", Target: "/srv/a"}, virtiofs.Share{Source: "/b", Target: "/srv/b"}
	at := []Place{{"share3", 2}, {"share1", 1}}
	for _, tt := range []struct {
		name     string
		needs    Needs
		shares   []virtiofs.Share
		template bool
		want     []Place // nil: an error
	}{
		{"same order", Needs{Ports: 5, Shares: []virtiofs.Share{a, b}, Places: at}, []virtiofs.Share{a, b}, false, at},
		{"other order", Needs{Ports: 5, Shares: []virtiofs.Share{a, b}, Places: at}, []virtiofs.Share{b, a}, false, []Place{at[1], at[0]}},
		{"from before there were slots", Needs{Shares: []virtiofs.Share{a, b}}, []virtiofs.Share{b, a}, false, []Place{{"share1", 0}, {"share0", 0}}},
		{"template", Needs{Ports: 5, Places: at}, []virtiofs.Share{b, a}, true, at},
		{"too few", Needs{Ports: 5, Shares: []virtiofs.Share{a, b}, Places: at[:1]}, []virtiofs.Share{a, b}, false, nil},
		{"another", Needs{Ports: 5, Shares: []virtiofs.Share{a, a}, Places: at}, []virtiofs.Share{a, b}, false, nil},
	} {
		got, err := tt.needs.SharePlaces(tt.shares, tt.template)
		if !slices.Equal(got, tt.want) || (err != nil) != (tt.want == nil) {
			t.Errorf("%s: %v, %v; want %v", tt.name, got, err, tt.want)
		}
	}
	if d := (Needs{Shares: []virtiofs.Share{a, b}}).Differences(Needs{Shares: []virtiofs.Share{b, a}}); len(d) != 0 {
		t.Errorf("the order counts: %v", d)
	}
}
