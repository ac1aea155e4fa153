package smoke

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// namePattern keeps names fit for file names, tables and XML.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// ParseCheck reads NAME=COMMAND: a check that passes when a shell in the guest
// runs the command with exit status 0.
func ParseCheck(spec string) (Check, error) {
	name, command, ok := strings.Cut(spec, "=")
	if !ok || !namePattern.MatchString(name) || strings.TrimSpace(command) == "" {
		return Check{}, fmt.Errorf("the check %q is not of the form NAME=COMMAND, such as git='git --version', with a name of letters, digits, dots, dashes and underscores", spec)
	}
	return Check{name, func(ctx context.Context, g *guest) (string, error) {
		return g.judge(ctx, "sh", "-c", "exec 2>&1\n"+command)
	}}, nil
}

// FindChecks makes a check of each executable file in dir, in the order of
// their names. They pass when they exit with status 0 in the guest.
func FindChecks(dir string) ([]Check, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("the directory of checks cannot be read: %w", err)
	}
	var checks []Check
	for _, e := range entries {
		name := e.Name()
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("the check %s cannot be read: %w", name, err)
		}
		if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			continue // what the checks need
		}
		if !namePattern.MatchString(name) {
			return nil, fmt.Errorf("the check %q in %s cannot be used: give it a name of letters, digits, dots, dashes and underscores, or take its executable bits", name, dir)
		}
		checks = append(checks, Check{name, func(ctx context.Context, g *guest) (string, error) {
			return g.judge(ctx, "sh", "-c", `exec "$0" 2>&1`, path.Join(g.checks, name))
		}})
	}
	if len(checks) == 0 {
		return nil, fmt.Errorf("there is no executable file in %s: make the checks executable (chmod +x), or leave out --checks", dir)
	}
	return checks, nil
}

// judge runs a user's check in the guest; argv sends its errors to its output.
func (g *guest) judge(ctx context.Context, argv ...string) (string, error) {
	var out lastBytes
	cmd := g.client.Command(ctx, argv...)
	cmd.Stdout = &out
	err := cmd.Run()
	return out.String(), err
}

// Names of results that are no Check.
const (
	resultImage     = "image"      // the files are those of the manifest
	resultAgent     = "boot"       // readiness "agent"
	resultSystem    = "system"     // readiness "system"
	resultPowerDown = "power-down" // the guest ends itself when it is asked to
)

// checkNames refuses names that mean two things in a report.
func checkNames(own []Check) error {
	seen := map[string]bool{resultImage: true, resultAgent: true, resultSystem: true, resultPowerDown: true}
	for _, c := range builtin() {
		seen[c.Name] = true
	}
	var errs []error
	for _, c := range own {
		if seen[c.Name] {
			errs = append(errs, fmt.Errorf("there are two checks named %s, or it is the name of a built-in one: choose another name", c.Name))
		}
		seen[c.Name] = true
	}
	return errors.Join(errs...)
}
