package agent

import (
	"errors"
	"fmt"
)

// A Feature is something that this version's agent does, and that the agent of
// an older image may not do.
type Feature string

// The features.
const (
	FeatureClock    Feature = "clock"     // see [Client.SyncClock]
	FeatureGrowDisk Feature = "grow-disk" // see [Client.GrowDisk]
	FeatureCopy     Feature = "copy"      // see package transfer
)

// purpose is what an agent without the feature cannot do.
func (f Feature) purpose() string {
	switch f {
	case FeatureClock:
		return "have the guest's clock set"
	case FeatureGrowDisk:
		return "grow a file system"
	case FeatureCopy:
		return "copy files"
	}
	return fmt.Sprintf("do what is called %q", string(f))
}

// UnsupportedError is why something failed that the guest's agent is too old
// for. What helps is to build the image anew, which gives it the agent of today,
// and to make a new sandbox from it. The error matches [errors.ErrUnsupported].
type UnsupportedError struct{ Feature Feature }

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("the guest's agent is too old to %s: build the image anew, and make a new sandbox from it", e.Feature.purpose())
}

// Is makes the error match [errors.ErrUnsupported].
func (e *UnsupportedError) Is(target error) bool { return target == errors.ErrUnsupported }
