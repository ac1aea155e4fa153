package machine

import "fmt"

// RestartPolicy says when a sandbox that ran and has ended by itself runs again.
type RestartPolicy string

// The policies. What was stopped by a command stays stopped with each, and a
// start that fails is an error with each. An empty one is RestartOnReboot.
const (
	RestartNo       RestartPolicy = "no"
	RestartOnReboot RestartPolicy = "on-reboot" // as a machine does
	RestartAlways   RestartPolicy = "always"    // also when the guest has powered off or its kernel or QEMU has crashed
)

// ParseRestart reads a policy.
func ParseRestart(text string) (RestartPolicy, error) {
	switch p := RestartPolicy(text); p {
	case "", RestartNo, RestartOnReboot, RestartAlways:
		return p, nil
	}
	return "", fmt.Errorf("%q is not a policy for restarts: use %s, %s or %s", text, RestartNo, RestartOnReboot, RestartAlways)
}
