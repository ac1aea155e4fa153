package stack

import "time"

// Question is whether a guest may connect to what no rule opens.
type Question struct {
	ID   string    `json:"id"` // by which it is answered; of no other question, also of another process
	Time time.Time `json:"time"`
	Host string    `json:"host"` // a name, or an address
	Port uint16    `json:"port"`
	Rule string    `json:"rule"` // that would open it
}
