package machine

import (
	"strings"
	"testing"
)

func TestNoTemplateIsMadeForAnOldQEMU(t *testing.T) {
	plan := &Plan{}
	plan.QEMU.Version.Major, plan.QEMU.Version.Minor = 7, 2
	if _, _, err := testHost(t).Template(plan, 1); err == nil || !strings.Contains(err.Error(), "need QEMU 9.0 or newer") {
		t.Errorf("got %v", err)
	}
}
