package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/skiff-ml/skiff/store/artifact"
)

// Errors that callers tell apart. What is not there is artifact.ErrNotFound.
var (
	// ErrSettings: the config map or a secret that it names is missing or wrong.
	ErrSettings = errors.New("object store settings")
	// ErrAway: the endpoint does not answer, or not now.
	ErrAway = errors.New("object store is away")
	// ErrDenied: the object store refuses the credentials, or what they may not.
	ErrDenied = errors.New("object store refuses access")
	// ErrCorrupt: what arrived is not what was sent, however often it was tried.
	ErrCorrupt = errors.New("contents do not match their checksum")
)

// Lasting reports whether an error of Fetch will still be there at the next try
// unless somebody changes something.
func Lasting(err error) bool {
	return errors.Is(err, artifact.ErrNotFound) || errors.Is(err, ErrDenied) || errors.Is(err, ErrSettings) ||
		errors.Is(err, ErrCorrupt) || errors.Is(err, artifact.ErrInvalid) || errors.Is(err, artifact.ErrUnsafe)
}

// maxText bounds what an object store may say in an error of ours.
const maxText = 300

// explain gives an error of the library its class, without the request's address
// and whatever else a server might echo.
func (c *Client) explain(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, errLocal) || errors.Is(err, errChanged) || errors.Is(err, ErrAway) || Lasting(err) {
		return err // said already, or no store's fault
	}
	var refused minio.ErrorResponse
	if !errors.As(err, &refused) {
		// Of a request that got no answer the reason alone: its address holds
		// nothing that the message does not say.
		if sent, is := errors.AsType[*url.Error](err); is {
			err = sent.Err
		}
		return fmt.Errorf("%s: %w (%s)", c.endpoint, ErrAway, c.clean(err.Error()))
	}
	said := c.clean(strings.TrimSpace(refused.Code + ": " + refused.Message))
	switch {
	case refused.Code == "NoSuchBucket":
		return fmt.Errorf("%s has no such bucket: %w", c.endpoint, artifact.ErrNotFound)
	case refused.StatusCode == http.StatusNotFound, refused.Code == "NoSuchKey", refused.Code == "NoSuchUpload":
		return fmt.Errorf("%s: %w (%s)", c.endpoint, artifact.ErrNotFound, said)
	case refused.Code == "XAmzContentSHA256Mismatch", refused.Code == "BadDigest", refused.Code == "XAmzContentChecksumMismatch":
		return fmt.Errorf("%s: %w (%s)", c.endpoint, ErrCorrupt, said)
	case refused.StatusCode == http.StatusUnauthorized, refused.StatusCode == http.StatusForbidden,
		refused.Code == "AccessDenied", refused.Code == "InvalidAccessKeyId", refused.Code == "SignatureDoesNotMatch":
		return fmt.Errorf("%s: %w (%s)", c.endpoint, ErrDenied, said)
	default:
		return fmt.Errorf("%s: %w (%s)", c.endpoint, ErrAway, said)
	}
}

// clean bounds a foreign text and takes the credentials out of it, should a
// server have put them there.
func (c *Client) clean(text string) string {
	for _, secret := range c.secrets {
		text = strings.ReplaceAll(text, secret, "…")
	}
	text = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	return text
}
