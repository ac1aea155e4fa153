package debian

import (
	_ "embed"
	"encoding/json"
	"fmt"
)

// mask is a systemd unit that the image masks, and why a sandbox can do without
// it. Starting a unit costs a fork and an exec or more, which is what a guest's
// boot time is made of; a masked unit is not even loaded.
type mask struct {
	Unit   string `json:"unit"`
	Reason string `json:"reason"`
	// Only is "debian" for what a guest of NixOS has not, or leaves to its
	// configuration.
	Only string `json:"only,omitempty"`
}

// unitTable is the one table for images of this recipe and those of Nix, whose
// modules (nix/guest/units.nix) read the same file.
type unitTable struct {
	// Masks are the units. Whoever needs one in a running guest uses
	// `systemctl unmask --runtime` as root.
	Masks []mask `json:"masks"`
	// Generators are what systemd runs at each start to make units, and why
	// none is to be made. Each costs a process before the first unit starts.
	Generators []mask `json:"generators"`
}

//go:embed units.json
var unitsJSON []byte

// units reads the table, which is a part of the program.
func units() unitTable {
	var table unitTable
	if err := json.Unmarshal(unitsJSON, &table); err != nil {
		panic(fmt.Sprintf("units.json: %v", err))
	}
	return table
}
