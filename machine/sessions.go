package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/internal/tree"
)

// KeptSessions are those of an AI agent for a project, which outlive its sandboxes.
type KeptSessions struct {
	ID        string   `json:"id"`        // PROJECT/AGENT, as the directory is called below layout.Dirs.Sessions
	Used      int64    `json:"used"`      // on the host, in bytes
	Sandboxes []string `json:"sandboxes"` // that have them
}

// Sessions are all that are kept, by their projects and agents.
func (h *Host) Sessions() ([]KeptSessions, error) {
	dirs, err := filepath.Glob(filepath.Join(h.Dirs.Sessions(), "*", "*")) // of which an error is that of a pattern
	if err != nil {
		return nil, err
	}
	users, err := h.sessionUsers()
	kept := []KeptSessions{}
	for _, dir := range dirs {
		id, bad := filepath.Rel(h.Dirs.Sessions(), dir)
		if info, gone := os.Lstat(dir); bad != nil || gone != nil || !info.IsDir() || strings.HasPrefix(filepath.Base(dir), durable.RemovedPrefix) {
			continue
		}
		used, bad := tree.Used(dir)
		err = errors.Join(err, bad)
		kept = append(kept, KeptSessions{ID: id, Used: used, Sandboxes: append([]string{}, users[id]...)})
	}
	return kept, err
}

// sessionUsers are the sandboxes that have sessions, by the IDs of these.
func (h *Host) sessionUsers() (map[string][]string, error) {
	all, err := h.List()
	users := map[string][]string{}
	for _, s := range all {
		c, bad := s.Config()
		if err = errors.Join(err, bad); bad != nil || c.AgentSessions == "" {
			continue
		}
		// The state's directory may have been reached by a link.
		agent, project := filepath.Base(c.AgentSessions), filepath.Base(filepath.Dir(c.AgentSessions))
		id := filepath.Join(project, agent)
		users[id] = append(users[id], s.Name)
	}
	return users, err
}

// RemoveSessions removes what is kept. A sandbox that has it would not start without its directory, so there must be none.
func (h *Host) RemoveSessions(id string) error {
	dir := filepath.Join(h.Dirs.Sessions(), id)
	if info, err := os.Lstat(dir); err != nil || !info.IsDir() || !filepath.IsLocal(id) || filepath.Clean(id) != id || strings.Count(id, "/") != 1 {
		return fmt.Errorf("there are no sessions %s", id)
	}
	users, err := h.sessionUsers()
	if err != nil {
		return fmt.Errorf("it cannot be known who has the sessions %s: %w", id, err)
	}
	if by := users[id]; len(by) > 0 {
		return remedy.Add(fmt.Errorf("the sessions %s are those of the sandbox %s", id, strings.Join(by, ", ")), remedy.Remove, by[0])
	}
	if err := durable.RemoveDir(dir); err != nil {
		return err
	}
	_ = os.Remove(filepath.Dir(dir)) // unless the project has those of other agents
	return nil
}
