package qmp

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
)

// transcript writes one debug record for each message of a connection. Arguments and results may
// hold passwords, keys and the guest's data, and no list of dangerous members is ever complete; so
// a record has names and sizes, and never a value.
type transcript struct {
	log *slog.Logger
}

func (t transcript) enabled() bool {
	return t.log.Enabled(context.Background(), slog.LevelDebug)
}

func (t transcript) sent(id uint64, name string, body []byte) {
	if !t.enabled() {
		return
	}
	t.log.Debug("QMP command", "id", id, "command", name, "arguments", argumentNames(body), "bytes", len(body))
}

func (t transcript) received(m *message) {
	if !t.enabled() {
		return
	}
	switch {
	case m.QMP != nil:
		t.log.Debug("QMP greeting", "version", m.QMP.Version.String(), "package", m.QMP.Version.Package)
	case m.Event != "":
		t.log.Debug("QMP event", "event", m.Event, "bytes", len(m.Data))
	case m.Error != nil:
		t.log.Debug("QMP refusal", "id", string(m.ID), "class", m.Error.Class)
	default:
		t.log.Debug("QMP reply", "id", string(m.ID), "bytes", len(m.Return))
	}
}

func (t transcript) ended(err error) {
	t.log.Debug("QMP connection ended", "err", err)
}

func (t transcript) cutOff(limit int) {
	t.log.Warn("A subscriber of QMP events did not keep up and was cut off", "events", limit)
}

// argumentNames returns the sorted names of a command's arguments, for the transcript only.
func argumentNames(body []byte) []string {
	var command struct {
		Arguments map[string]json.RawMessage `json:"arguments"`
	}
	if err := json.Unmarshal(body, &command); err != nil {
		return nil // QEMU will say what is wrong with it
	}
	return slices.Sorted(maps.Keys(command.Arguments))
}
