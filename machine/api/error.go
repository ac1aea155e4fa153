package api

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/sourcery-zone/sandbox/internal/remedy"
)

// Code says what kind of error an Error is, to programs.
type Code string

// The codes of errors. Those of which programs need to know have a value below that
// errors.Is finds, on either side.
const (
	CodeFailed       Code = "failed"        // none of the others
	CodeInvalid      Code = "invalid"       // the request makes no sense
	CodeBusy         Code = "busy"          // another call is under way that excludes this one
	CodeNotRunning   Code = "not-running"   // no command can run in the sandbox at this moment
	CodeConsoleTaken Code = "console-taken" // somebody else writes to the console
	CodeGuest        Code = "guest"         // the guest is at fault, and all on the host did what it should
	CodeNotExist     Code = "not-exist"     // there is no sandbox, snapshot or image of that name
	CodeExist        Code = "exist"         // there is one already
)

// What errors.Is may be asked, besides fs.ErrNotExist and fs.ErrExist.
var (
	ErrBusy         = errors.New("it is being changed already")
	ErrNotRunning   = errors.New("it does not run")
	ErrConsoleTaken = errors.New("somebody else writes to the console")
	ErrGuest        = errors.New("the guest failed")
)

var kinds = map[Code]error{CodeBusy: ErrBusy, CodeNotRunning: ErrNotRunning, CodeConsoleTaken: ErrConsoleTaken, CodeGuest: ErrGuest, CodeNotExist: fs.ErrNotExist, CodeExist: fs.ErrExist}

// Error is an error that goes from one process to the other without losing its kind.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`

	Remedy []Remedy `json:"remedies,omitempty"` // see Remedies
}

// Remedy is what a person can do about an error: a word such as "start", and what that is
// about, such as the sandbox's name. Package internal/remedy has all of them.
type Remedy = remedy.Remedy

// Remedies are what to do about an error: any one of them helps. The words are for
// whoever shows it, so the error's own text does not have them.
func Remedies(err error) []Remedy { return remedy.Of(err) }

// Errorf returns an Error.
func Errorf(code Code, format string, args ...any) error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

func (e *Error) Error() string { return e.Message }

// Remedies returns what to do about the error.
func (e *Error) Remedies() []Remedy { return e.Remedy }

// Is lets errors.Is find ErrBusy and the others.
func (e *Error) Is(target error) bool { return kinds[e.Code] == target && target != nil }

// portable is err as the other process is to have it.
func portable(err error) *Error {
	code := CodeFailed
	if inner, ok := errors.AsType[*Error](err); ok {
		code = inner.Code
	}
	for of, kind := range kinds {
		if errors.Is(err, kind) {
			code = of
		}
	}
	return &Error{Code: code, Message: err.Error(), Remedy: remedy.Of(err)}
}
