//go:build linux

package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/internal/wire"
)

// Controller carries out what the host asks for on the control subsystem. Its
// methods may be called at the same time.
type Controller interface {
	// Configure applies the host's configuration and returns when home and
	// shares are mounted.
	Configure(ctx context.Context, config agent.BootConfig) error
	// Status tells how far the start has come. Its Features are filled in.
	Status() agent.Status
	// Wait returns when a stage is reached or cannot be reached any more.
	Wait(ctx context.Context, stage agent.Stage) error
	// PowerOff begins an orderly shutdown.
	PowerOff(ctx context.Context) error
	// Sync returns when all file systems are written back.
	Sync(ctx context.Context) error
	// Resume puts right what is wrong after the guest stood still.
	Resume(ctx context.Context, config agent.ResumeConfig) error
	// GrowDisk waits until the disk has that many bytes, and extends its file
	// system to all of it.
	GrowDisk(ctx context.Context, bytes int64) error
	// Clock advances the clock, and returns what it shows then.
	Clock(advance time.Duration) (time.Time, error)
	// Ports returns the ports on which programs listen, in their order, once
	// they are others than those that are known; agent.MaxPorts at most.
	Ports(ctx context.Context, known []agent.Port) ([]agent.Port, error)
	// Workspace finds the copy-on-write share with that tag.
	Workspace(tag string) (Workspace, error)
	// Mount mounts a share whose device comes now.
	Mount(ctx context.Context, mount agent.Mount) error
	// Forget makes the kernel forget files that nobody uses.
	Forget() error
	// Touch gives names of the share with that tag a time of modification, by which programs are told that the host has
	// changed them; agent.MaxTouches at most.
	Touch(ctx context.Context, tag string, modified time.Time, names []agent.Touch) error
	// Unmount unmounts the share with that tag, and forgets it. One that is in use stays mounted, unless force is set:
	// then the result says by whom.
	Unmount(ctx context.Context, tag string, force bool) (agent.Users, error)
}

// serveControl answers control requests on a stream until it ends. Each has a
// goroutine of its own: a wait must not hold up a question about the status.
func serveControl(ctx context.Context, stream io.ReadWriter, controller Controller) {
	ctx, cancel := context.WithCancel(ctx)
	var (
		answers sync.WaitGroup
		mu      sync.Mutex
	)
	defer answers.Wait()
	defer cancel()
	decoder, encoder := json.NewDecoder(stream), json.NewEncoder(stream)
	send := func(response wire.ControlResponse) {
		mu.Lock()
		defer mu.Unlock()
		// A host that is gone needs no answer.
		_ = encoder.Encode(response)
	}
	for {
		var request wire.ControlRequest
		if err := decoder.Decode(&request); err != nil {
			if !errors.Is(err, io.EOF) {
				// After a malformed line nothing that follows can be trusted.
				send(wire.ControlResponse{Error: &wire.ControlError{
					Code: wire.CodeBadRequest, Message: fmt.Sprintf("not a control request: %v", err),
				}})
			}
			return
		}
		answers.Go(func() { send(answerControl(ctx, request, controller)) })
	}
}

func answerControl(ctx context.Context, request wire.ControlRequest, controller Controller) wire.ControlResponse {
	response := wire.ControlResponse{ID: request.ID}
	result, err := callController(ctx, request, controller)
	if err == nil {
		response.Result, err = json.Marshal(result)
	}
	if err != nil {
		refused, ok := errors.AsType[*wire.ControlError](err)
		if !ok {
			refused = &wire.ControlError{Code: wire.CodeFailed, Message: err.Error()}
		}
		response.Error = refused
	}
	return response
}

// callController performs one request; nil is the result of those that have
// nothing to tell.
func callController(ctx context.Context, request wire.ControlRequest, controller Controller) (any, error) {
	switch request.Method {
	case wire.MethodConfigure:
		var config agent.BootConfig
		if err := parameters(request, &config); err != nil {
			return nil, err
		}
		return nil, controller.Configure(ctx, config)
	case wire.MethodStatus:
		return statusOf(controller), nil
	case wire.MethodWait:
		var wait wire.WaitParams
		if err := parameters(request, &wait); err != nil {
			return nil, err
		}
		stage := agent.Stage(wait.Stage)
		if stage != agent.StageAgent && stage != agent.StageSystem {
			return nil, &wire.ControlError{
				Code:    wire.CodeBadRequest,
				Message: fmt.Sprintf("there is no stage %q to wait for; there are %q and %q", wait.Stage, agent.StageAgent, agent.StageSystem),
			}
		}
		err := controller.Wait(ctx, stage)
		return statusOf(controller), err
	case wire.MethodPowerOff:
		return nil, controller.PowerOff(ctx)
	case wire.MethodSync:
		return nil, controller.Sync(ctx)
	case wire.MethodResume:
		var config agent.ResumeConfig
		if err := parameters(request, &config); err != nil {
			return nil, err
		}
		return nil, controller.Resume(ctx, config)
	case wire.MethodGrowDisk:
		var grow wire.GrowDiskParams
		if err := parameters(request, &grow); err != nil {
			return nil, err
		}
		return nil, controller.GrowDisk(ctx, grow.Bytes)
	case wire.MethodClock:
		var clock wire.ClockParams
		if err := parameters(request, &clock); err != nil {
			return nil, err
		}
		now, err := controller.Clock(clock.Advance)
		return wire.ClockReading{Time: now}, err
	case wire.MethodPorts:
		var known []agent.Port
		if err := parameters(request, &known); err != nil {
			return nil, err
		}
		return controller.Ports(ctx, known)
	case wire.MethodMount:
		var mount agent.Mount
		if err := parameters(request, &mount); err != nil {
			return nil, err
		}
		return nil, controller.Mount(ctx, mount)
	case wire.MethodForget:
		return nil, controller.Forget()
	case wire.MethodTouch:
		var touch wire.TouchParams
		if err := parameters(request, &touch); err != nil {
			return nil, err
		}
		if len(touch.Names) > agent.MaxTouches {
			return nil, &wire.ControlError{Code: wire.CodeBadRequest, Message: fmt.Sprintf("%d names are too many at a time", len(touch.Names))}
		}
		names := make([]agent.Touch, len(touch.Names))
		for i, n := range touch.Names {
			names[i] = agent.Touch{Path: string(n.Path), Other: n.Other}
		}
		return nil, controller.Touch(ctx, touch.Tag, time.Unix(touch.Seconds, int64(touch.Nanoseconds)), names)
	case wire.MethodUnmount:
		var unmount wire.UnmountParams
		if err := parameters(request, &unmount); err != nil {
			return nil, err
		}
		return controller.Unmount(ctx, unmount.Tag, unmount.Force)
	}
	return nil, &wire.ControlError{
		Code:    wire.CodeUnknownMethod,
		Message: fmt.Sprintf("the guest's agent knows no method %q (is the image older than the program that asks?)", request.Method),
	}
}

// statusOf is the controller's status, with what this package can do.
func statusOf(controller Controller) agent.Status {
	status := controller.Status()
	status.Features = agent.Features()
	return status
}

func parameters(request wire.ControlRequest, into any) error {
	if err := json.Unmarshal(request.Params, into); err != nil {
		return &wire.ControlError{
			Code:    wire.CodeBadRequest,
			Message: fmt.Sprintf("the parameters of %q cannot be understood: %v", request.Method, err),
		}
	}
	return nil
}
