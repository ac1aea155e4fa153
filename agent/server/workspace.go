//go:build linux

package server

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/sourcery-zone/sandbox/agent/internal/wire"
)

// Workspace is a copy-on-write share. Its paths are relative to the share's directory.
type Workspace interface {
	// List calls visit for each name of the upper layer, in the order of a walk that takes the names of each directory in
	// the order of their bytes. It ends with visit's first error.
	List(ctx context.Context, visit func(wire.WorkspaceEntry) error) error
	// Open opens a regular file as the guest sees it.
	Open(path string) (io.ReadCloser, error)
	// Keep copies what a directory has of the host's, so that it needs nothing there.
	Keep(ctx context.Context, path string) error
	// Restore makes what is at the path as the host has it.
	Restore(ctx context.Context, path string) error
	// Refresh forgets what is known of the host's files.
	Refresh() error
}

// serveWorkspace answers requests about workspaces, one after the other, until the stream ends.
func serveWorkspace(ctx context.Context, stream io.ReadWriter, controller Controller) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	decoder, out := json.NewDecoder(stream), bufio.NewWriterSize(stream, wire.MaxWorkspaceFrame)
	for {
		var request wire.WorkspaceRequest
		if err := decoder.Decode(&request); err != nil {
			return // the host is gone, or is none of ours
		}
		var end wire.WorkspaceEnd
		if err := answerWorkspace(ctx, out, request, controller); err != nil {
			end.Error = err.Error()
		}
		if writeJSON(out, wire.FrameEnd, end) != nil || out.Flush() != nil {
			return
		}
	}
}

func answerWorkspace(ctx context.Context, out io.Writer, request wire.WorkspaceRequest, controller Controller) error {
	workspace, err := controller.Workspace(request.Tag)
	if err != nil {
		return err
	}
	path := string(request.Path)
	switch request.Operation {
	case wire.WorkspaceList:
		return workspace.List(ctx, func(entry wire.WorkspaceEntry) error { return writeJSON(out, wire.FrameEntry, entry) })
	case wire.WorkspaceRead, wire.WorkspaceSum:
		file, err := workspace.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		if request.Operation == wire.WorkspaceRead {
			_, err = io.CopyBuffer(contentWriter{out}, onlyReader{file}, make([]byte, wire.MaxWorkspaceFrame))
			return err
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, file); err != nil {
			return err
		}
		return wire.WriteFrame(out, wire.FrameContent, sum.Sum(nil))
	case wire.WorkspaceKeep:
		return workspace.Keep(ctx, path)
	case wire.WorkspaceRestore:
		return workspace.Restore(ctx, path)
	case wire.WorkspaceRefresh:
		return workspace.Refresh()
	}
	return fmt.Errorf("the guest's agent knows no operation %q on a workspace", request.Operation)
}

// contentWriter makes a frame of each piece.
type contentWriter struct{ out io.Writer }

func (w contentWriter) Write(p []byte) (int, error) {
	if err := wire.WriteFrame(w.out, wire.FrameContent, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func writeJSON(out io.Writer, kind byte, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if len(text) > wire.MaxWorkspaceFrame {
		return errors.New("a name is too long to be told")
	}
	return wire.WriteFrame(out, kind, text)
}
