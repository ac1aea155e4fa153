package wire

// TransferArgs is the argument list of an [ExecRequest] with Self that moves files
// between its standard streams and the guest's file system, as the request's
// user and relative to its directory. See package internal/tree for the streams.
//
//	send PATH NAME         pack PATH as NAME
//	send-archive PATH NAME the same for other programs
//	receive PATH NAME      unpack NAME to PATH
//	receive-archive PATH   unpack any archive into PATH
func TransferArgs(mode string, args ...string) []string {
	return append([]string{"sandbox-agent", mode}, args...)
}

// Modes of [TransferArgs].
const (
	TransferSend           = "send"
	TransferSendArchive    = "send-archive"
	TransferReceive        = "receive"
	TransferReceiveArchive = "receive-archive"
)
