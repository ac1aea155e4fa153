//go:build linux

package guest

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// reply is what one call of systemctl prints and returns.
type reply struct {
	out string
	err error
}

func TestSystemdIsAskedUntilItAnswers(t *testing.T) {
	slow := reply{"unknown\n", errors.New("exit status 1: Failed to query system state: Connection timed out")}
	refused := reply{"", errors.New("exit status 1: Failed to connect to bus: Connection refused")}
	for name, test := range map[string]struct {
		answers []reply
		state   string
		failed  []string
		err     string
	}{
		"up":                  {[]reply{{"running\n", nil}}, "running", nil, ""},
		"slow":                {[]reply{slow, refused, {"starting\n", errors.New("exit status 1")}, {"running\n", nil}}, "running", nil, ""},
		"slow to list":        {[]reply{{"degraded\n", errors.New("exit status 1")}, slow, {"degraded\n", nil}, {"a.service loaded failed failed A\n", nil}}, "degraded", []string{"a.service"}, ""},
		"ends":                {[]reply{slow, {"stopping\n", errors.New("exit status 1")}}, "stopping", nil, `its state is "stopping"`},
		"crashed":             {[]reply{slow}, "unknown", nil, "Connection timed out"},
		"not systemd at all":  {[]reply{{"offline\n", errors.New("exit status 1")}}, "offline", nil, `"offline"`},
		"without a systemctl": {[]reply{{"", fmt.Errorf("exec: %w", exec.ErrNotFound)}}, "", nil, "systemd does not tell its state"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := 0
				began := time.Now()
				state, failed, err := systemState(t.Context(), func(context.Context, ...string) (string, error) {
					a := test.answers[min(asked, len(test.answers)-1)]
					asked++
					return a.out, a.err
				})
				if state != test.state || !reflect.DeepEqual(failed, test.failed) || !says(err, test.err) {
					t.Errorf("after %d questions: %q, %q, %v", asked, state, failed, err)
				}
				if name == "crashed" {
					if took := time.Since(began); took < systemdPatience || !strings.Contains(err.Error(), systemdPatience.String()) {
						t.Errorf("given up after %v, with %v", took, err)
					}
				} else if asked != len(test.answers) {
					t.Errorf("asked %d times, want %d", asked, len(test.answers))
				}
			})
		})
	}
}
