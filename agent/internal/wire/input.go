package wire

// RequestReportInput is the channel request, before the one that starts a
// command, which asks the guest to say by [RequestInputRead] how much of its
// input the command has read: once when that is all of the first data, which
// must be at most [FirstInput] bytes for it, and once at the command's end.
const (
	RequestReportInput = "report-input@sandbox"
	RequestInputRead   = "input-read@sandbox"
)

// FirstInput is how many bytes of input a guest can watch being read: what one
// buffer of a pipe holds. The smallest page of a processor that we have has as
// many.
const FirstInput = 4096

// InputRead is the payload of [RequestInputRead].
type InputRead struct{ Bytes uint64 }
