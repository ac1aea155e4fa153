package agent

// Transport is the channel to the guest's agent.
type Transport string

// The transports; TransportAuto takes vsock where the host has it.
const (
	TransportAuto   Transport = "auto"
	TransportVsock  Transport = "vsock"
	TransportSerial Transport = "serial"
)
