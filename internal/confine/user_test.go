package confine

import (
	"slices"
	"testing"
)

func TestUserIsOneThatNobodyElseHas(t *testing.T) {
	const (
		all = "         0          0 4294967295\n"
		few = "0 1000 1\n1 100000 65536\n"
	)
	for _, tt := range []struct {
		name, uids, gids string
		busy             []uint32
		want             uint32
		ok               bool
	}{
		{"whole machine", all, all, nil, firstUID + 77, true},
		{"rootless container", few, few, nil, smallUID + 77, true},
		{"who else has the number", few, few, []uint32{smallUID + 77, smallUID + 78}, smallUID + 79, true},
		{"groups are fewer", all, "0 0 65536\n", nil, smallUID + 77, true},
		{"only nobody", "0 1000 1\n65534 100000 1\n", few, nil, nobody, true},
		{"only ourselves", "0 1000 1\n", "0 1000 1\n", nil, 0, false},
		{"not understood", "none\n", all, nil, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if id, ok := chooseUser(tt.uids, tt.gids, 77, func(id uint32) bool { return slices.Contains(tt.busy, id) }); id != tt.want || ok != tt.ok {
				t.Errorf("chooseUser = %d, %v; want %d, %v", id, ok, tt.want, tt.ok)
			}
		})
	}
}
