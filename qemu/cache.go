package qemu

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"
)

// cache keeps answers that take long to get. It only ever saves time: an answer that cannot be read or
// written is asked for again, without an error.
type cache struct {
	dir string // "": keep nothing
}

// entry stores what was asked beside the answer, so that a collision of the file's name is noticed.
type entry struct {
	Schema int
	Key    string
	Value  json.RawMessage
}

// cacheSchema changes whenever a cached type or the way of finding its value does.
const cacheSchema = 3

func (c cache) path(kind, key string) string {
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(c.dir, kind+"-"+hex.EncodeToString(sum[:8])+".json")
}

func (c cache) load(kind, key string, value any) bool {
	if c.dir == "" {
		return false
	}
	data, err := os.ReadFile(c.path(kind, key))
	if err != nil {
		return false
	}
	var e entry
	if json.Unmarshal(data, &e) != nil || e.Schema != cacheSchema || e.Key != key {
		return false
	}
	return json.Unmarshal(e.Value, value) == nil
}

func (c cache) save(kind, key string, value any) {
	if c.dir == "" || os.MkdirAll(c.dir, 0o700) != nil {
		return
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return
	}
	data, err := json.MarshalIndent(entry{Schema: cacheSchema, Key: key, Value: raw}, "", "\t")
	if err != nil {
		return
	}
	_ = renameio.WriteFile(c.path(kind, key), data, 0o600) // see cache
}

func inode(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}
