package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// A Feature is something that this version's agent does, and that the agent of
// an older image may not do. [Status] has the list of those that there are.
type Feature string

// The features. One that is more than a method of [Client], such as a field of
// [BootConfig] that an older agent would ignore, has to be asked for by
// [Client.Require] before anybody relies on it.
const (
	FeatureClock    Feature = "clock"     // see [Client.SyncClock]
	FeatureDisk     Feature = "disk"      // see [Status.Disk]
	FeatureGrowDisk Feature = "grow-disk" // see [Client.GrowDisk]
	FeatureCopy     Feature = "copy"      // see package transfer
	FeaturePorts    Feature = "ports"     // see [Client.Ports]

	FeatureCertificates Feature = "certificates" // see [BootConfig.Certificates]
	FeatureEnvironment  Feature = "environment"  // see [BootConfig.Environment]
	FeatureKeys         Feature = "keys"         // see [Client.LendKeys]
	FeatureGPGKeys      Feature = "gpg-keys"     // see [Client.LendGPGKeys]
	FeatureFiles        Feature = "files"        // see [BootConfig.Files]
	FeatureHotPlug      Feature = "hot-plug"     // see [Client.Mount]

	FeatureCaches Feature = "caches" // see [BootConfig.Caches]

	FeatureCopyOnWrite Feature = "copy-on-write" // see [Mount.CopyOnWrite] and [Client.Workspace]
	FeatureShareFile   Feature = "share-file"    // see [Mount.File]
	FeatureTouch       Feature = "touch"         // see [Client.Touch]
	FeatureForget      Feature = "forget"        // see [Client.Forget]

	FeatureHotPlugCopyOnWrite Feature = "hot-plug-copy-on-write" // see [Mount.Origin] and [Client.Mount]
)

// Features are what an agent of this version can do.
func Features() []Feature {
	return []Feature{FeatureClock, FeatureDisk, FeatureGrowDisk, FeatureCopy, FeaturePorts, FeatureCertificates, FeatureEnvironment, FeatureKeys, FeatureGPGKeys, FeatureFiles, FeatureCopyOnWrite, FeatureHotPlug, FeatureCaches, FeatureShareFile, FeatureTouch, FeatureForget, FeatureHotPlugCopyOnWrite}
}

// purpose is what an agent without the feature cannot do.
func (f Feature) purpose() string {
	switch f {
	case FeatureClock:
		return "have the guest's clock set"
	case FeatureDisk:
		return "use a disk, so that what is installed would be lost"
	case FeatureGrowDisk:
		return "grow a file system"
	case FeatureCopy:
		return "copy files"
	case FeaturePorts:
		return "tell on which ports programs listen"
	case FeatureCertificates:
		return "make the guest's programs believe certificates of the host, so that they would reach nothing of which the network reads the requests"
	case FeatureEnvironment:
		return "give programs in the guest variables of the host, in which they have what stands for its secrets"
	case FeatureKeys:
		return "let programs in the guest use keys of the host's ssh agent"
	case FeatureGPGKeys:
		return "let programs in the guest use keys of the host's gpg-agent"
	case FeatureFiles:
		return "write files of the host into the guest's home, by which its programs know of logins"
	case FeatureCaches:
		return "use a cache"
	case FeatureCopyOnWrite:
		return "keep apart what it changes in a copy-on-write share, so that it could not write there at all"
	case FeatureShareFile:
		return "mount a single file, so that it would see a directory in its place"
	case FeatureTouch:
		return "tell programs in the guest of what the host changes in a share"
	case FeatureForget:
		return "have the guest forget files of shares, so that it would get no more of them once it knows too many"
	case FeatureHotPlugCopyOnWrite:
		return "mount and unmount copy-on-write shares while the guest runs"
	case FeatureHotPlug:
		return "mount and unmount shares while the guest runs"
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

// Require returns an [*UnsupportedError] if the guest's agent says that it does
// not have the feature. It asks once for each client.
//
// An agent from before there was a list says nothing. It may have the features
// that were there by then, and whoever relies on one of them learns of it when
// the agent refuses.
func (c *Client) Require(ctx context.Context, feature Feature) error {
	c.mu.Lock()
	told := c.told
	c.mu.Unlock()
	if !told {
		if _, err := c.Status(ctx); err != nil {
			return err
		}
	}
	c.mu.Lock()
	has := c.features
	c.mu.Unlock()
	if has == nil {
		has = []Feature{FeatureClock, FeatureDisk, FeatureGrowDisk, FeatureCopy}
	}
	if !slices.Contains(has, feature) {
		return &UnsupportedError{feature}
	}
	return nil
}
