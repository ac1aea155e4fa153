package aws

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/smithy-go"
)

// Files are those in which the user's profiles are.
func Files(getenv func(string) string) []string {
	of := func(variable, otherwise string) string {
		path, err := filepath.Abs(cmp.Or(getenv(variable), otherwise))
		if err != nil {
			return otherwise
		}
		return path
	}
	return []string{of("AWS_CONFIG_FILE", config.DefaultSharedConfigFilename()), of("AWS_SHARED_CREDENTIALS_FILE", config.DefaultSharedCredentialsFilename())}
}

// Profile gets the key of a profile of the user's ~/.aws, as the SDK does: one that is written there, that a program prints
// (credential_process), of a role, or of a login at IAM Identity Center. AWS, which is dialled by dial, is asked for the latter two.
func Profile(ctx context.Context, dial func(ctx context.Context, network, address string) (net.Conn, error), name string) (c Credentials, err error) {
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { t.Proxy, t.DialContext, t.DisableKeepAlives = nil, dial, true })
	cfg, err := config.LoadDefaultConfig(ctx, config.WithSharedConfigProfile(name), config.WithHTTPClient(client),
		config.WithEC2IMDSClientEnableState(imds.ClientDisabled)) // what this machine is to AWS is no profile's
	if err != nil {
		return c, fmt.Errorf("reading the profile %s of AWS: %w", name, err)
	}
	k, err := cfg.Credentials.Retrieve(ctx)
	if err != nil {
		if byProcess(cfg) {
			err = withoutOutput(err)
		}
		return c, fmt.Errorf("the profile %s of AWS has no key: %w", name, err)
	}
	c = Credentials{AccessKeyID: k.AccessKeyID, SecretAccessKey: k.SecretAccessKey, SessionToken: k.SessionToken, Region: cfg.Region}
	if k.CanExpire {
		c.Expiration = k.Expires.Round(0).UTC()
	}
	return c, nil
}

// byProcess tells whether the key of a profile, or that by which it gets one, is what a program prints.
func byProcess(cfg sdk.Config) bool {
	for _, source := range cfg.ConfigSources {
		if shared, ok := source.(config.SharedConfig); ok {
			for of := &shared; of != nil; of = of.Source {
				if of.CredentialProcess != "" {
					return true
				}
			}
		}
	}
	return false
}

// withoutOutput is err without what the program has printed, which the SDK repeats if it cannot read it: it may be a key beside a warning.
func withoutOutput(err error) error {
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return fmt.Errorf("its credential_process has failed: %w", failed)
	}
	if failed, ok := errors.AsType[smithy.APIError](err); ok { // of a role
		return failed
	}
	return errors.New("its credential_process has not ended in time, or has printed something else than a key: run it, and see that it prints JSON as AWS documents it, and nothing else")
}
