// Package remedy lets an error say what to do about it, as a value: the words, with the
// commands and options that a person types, are those of the program that shows it.
package remedy

import "strings"

// Action is something that a person can do.
type Action string

// The actions, with their arguments.
const (
	Start        Action = "start"         // SANDBOX
	Stop         Action = "stop"          // SANDBOX
	End          Action = "end"           // SANDBOX: as Stop, of one that is broken
	StopOther    Action = "stop-other"    // SANDBOX: one that another version of the program has started
	StartWithout Action = "start-without" // SANDBOX: not from its snapshot
	Restart      Action = "restart"       // SANDBOX
	Remove       Action = "remove"        // SANDBOX
	RemoveNow    Action = "remove-now"    // SANDBOX, although it runs
	ResetNow     Action = "reset-now"     // SANDBOX, although it runs
	NewDisk      Action = "new-disk"      // SANDBOX: an empty one, or that of a snapshot
	ResizeMemory Action = "resize-memory" // SANDBOX SIZE
	StopToResize Action = "stop-resize"   // SANDBOX OPTION SIZE: which needs a stop and a start
	UseExisting  Action = "use-existing"  // SANDBOX: or remove it, or choose another name
	OtherName    Action = "other-name"    // SANDBOX: or remove the one that has it
	ShorterName  Action = "shorter-name"
	List         Action = "list"
	Inspect      Action = "inspect"    // SANDBOX
	ListPorts    Action = "list-ports" // SANDBOX
	Examine      Action = "examine"    // the machine

	AllowWeak       Action = "allow-weak"       // isolation
	AcceptShare     Action = "accept-share"     // SANDBOX DIRECTORY
	AcceptDangerous Action = "accept-dangerous" // SANDBOX DIRECTORY

	ShareWithoutRules Action = "share-without-rules" // where they cannot be enforced

	ListMounts Action = "list-mounts" // SANDBOX
	Unmount    Action = "unmount"     // SANDBOX: some share
	UnmountNow Action = "unmount-now" // SANDBOX PLACE: although it is in use
	DropShare  Action = "drop-share"  // SANDBOX PLACE: that is to be had no more

	ListSnapshots  Action = "list-snapshots"  // SANDBOX
	RemoveSnapshot Action = "remove-snapshot" // SANDBOX TAG
	OtherTag       Action = "other-tag"       // SANDBOX TAG: or remove the one that has it
	SaveWithHome   Action = "save-with-home"  // SANDBOX

	BuildImage     Action = "build-image"
	BuildForeign   Action = "build-foreign"    // ARCHITECTURE
	RebuildImage   Action = "rebuild-image"    // one with a newer agent
	BuildPublished Action = "build-published"  // FLAKE
	BuildRecipe    Action = "build-recipe"     // without Nix
	NameFlake      Action = "name-flake"       // DIRECTORY
	ChooseImage    Action = "choose-image"     // as the default, or for once
	OtherImage     Action = "other-image"      // or another architecture
	ReplaceImage   Action = "replace-image"    // REFERENCE
	RemoveItsUsers Action = "remove-its-users" // the sandboxes of an image
	FindAgent      Action = "find-agent"

	Set           Action = "set"             // OPTION VALUE, where VALUE may be a description
	MakeWith      Action = "make-with"       // OPTION VALUE: of a sandbox that is new
	SetYourself   Action = "set-yourself"    // OPTION, which a project's file may not
	SetByFlag     Action = "set-by-flag"     // OPTION, to a value that no file may have
	LeaveOut      Action = "leave-out"       // OPTION
	LessMemory    Action = "less-memory"     // than the machine has
	LargerDisk    Action = "larger-disk"     // or a new sandbox
	NoPorts       Action = "no-ports"        // or a network
	RemoveOrRerun Action = "remove-or-rerun" // not both
	SetVariable   Action = "set-variable"    // NAME, of a script
	AllowUnsafe   Action = "allow-unsafe"    // commands of QEMU's monitor
	StoreSecret   Action = "store-secret"    // NAME
	LogIn         Action = "log-in"          // PROVIDER: of an AI model
)

// Remedy is what to do, and on what.
type Remedy struct {
	Do   Action   `json:"do"`
	Args []string `json:"args,omitempty"`
}

func (r Remedy) String() string { return strings.Join(append([]string{string(r.Do)}, r.Args...), " ") }

// Error is an error with a remedy.
type Error struct {
	Err    error
	Remedy Remedy
}

// Add gives an error a remedy; of several, any one helps. No error stays none.
func Add(err error, do Action, args ...string) error {
	if err == nil {
		return nil
	}
	return &Error{err, Remedy{do, args}}
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// Of lists the remedies of an error, in the order in which they were added.
func Of(err error) []Remedy {
	switch e := err.(type) {
	case *Error:
		return append(Of(e.Err), e.Remedy)
	case interface{ Remedies() []Remedy }: // that has come from another process
		return e.Remedies()
	case interface{ Unwrap() error }:
		return Of(e.Unwrap())
	case interface{ Unwrap() []error }:
		var all []Remedy
		for _, err := range e.Unwrap() {
			all = append(all, Of(err)...)
		}
		return all
	}
	return nil
}
