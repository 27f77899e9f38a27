package artifact

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/skiff-ml/skiff/api/address"
)

const (
	// maxSegment is what Linux file systems take for one name.
	maxSegment = 255
	// maxKey leaves room for the root within PATH_MAX.
	maxKey = 2048
)

// Location is where an artifact is.
type Location struct {
	// Scheme is that of the URI: minio, s3, gs, http or https.
	Scheme string
	// Key is the place below the namespace's folder, slash-separated:
	// "minio/mlpipeline/…".
	Key string
	// HostPath is on this machine. It is for mounts and messages; to read it,
	// use the repository's methods, which do not trust what lies there.
	HostPath string
	// ContainerPath is where every container of the namespace sees it.
	ContainerPath string

	namespace string
}

// segments are the names from the root down.
func (l Location) segments() []string {
	return append([]string{l.namespace}, strings.Split(l.Key, "/")...)
}

// schemeFolder is a scheme's folder in a namespace and, with a slash before it,
// in a container; the SDKs fix both.
func schemeFolder(scheme string) (folder string, ok bool) {
	switch scheme {
	case "minio", "s3":
		return scheme, true
	case "gs":
		return "gcs", true
	default:
		return "", false
	}
}

// schemeFolders are all of them.
func schemeFolders() []string { return []string{"minio", "s3", "gcs"} }

// Web reports whether the URI is an http or https address: something that is read
// from there and written nowhere.
func (l Location) Web() bool { return l.Scheme == "http" || l.Scheme == "https" }

// Locate says where a namespace keeps a URI; nothing needs to be there. It is
// strict (ErrInvalid): no empty, "." or ".." segment, no NUL, control character
// or backslash, and no percent-encoding, which some readers would decode and
// others not. One trailing slash is taken off. Of an http or https address the
// copy has a folder of its own, named by the address's hash.
func (r *Repository) Locate(namespace, uri string) (Location, error) {
	if err := checkNamespace(namespace); err != nil {
		return Location{}, err
	}
	key, err := Key(uri)
	if err != nil {
		return Location{}, err
	}
	scheme, _, _ := strings.Cut(uri, "://")
	return Location{
		Scheme: scheme, Key: key, namespace: namespace,
		HostPath:      filepath.Join(r.path, namespace, filepath.FromSlash(key)),
		ContainerPath: path.Join("/", key),
	}, nil
}

// Key is the place of a URI below a namespace's folder, slash-separated:
// "minio/mlpipeline/…". It is as strict as Locate.
func Key(uri string) (string, error) {
	scheme, key, found := strings.Cut(uri, "://")
	if scheme == "http" || scheme == "https" {
		return webKey(uri)
	}
	folder, known := schemeFolder(scheme)
	if !found || !known {
		return "", fmt.Errorf("artifact %.200q: the scheme must be minio, s3, gs, http or https: %w", uri, ErrInvalid)
	}
	key = strings.TrimSuffix(key, "/")
	if len(key) > maxKey {
		return "", fmt.Errorf("artifact %.80q…: %d bytes are more than %d: %w", uri, len(key), maxKey, ErrInvalid)
	}
	for segment := range strings.SplitSeq(key, "/") {
		if err := checkSegment(segment); err != nil {
			return "", fmt.Errorf("artifact %q: %w", uri, err)
		}
	}
	return folder + "/" + key, nil
}

// webFolder is where copies of what has an address are, in a namespace and, with
// a slash before it, in containers.
const webFolder = "https"

func webKey(uri string) (string, error) {
	target, err := address.Anywhere.Parse(uri)
	if err == nil && (len(uri) > maxKey || !utf8.ValidString(uri)) {
		err = errors.New("it is too long, or not UTF-8")
	}
	if err != nil {
		return "", fmt.Errorf("artifact %.200q: %w: %w", uri, ErrInvalid, err)
	}
	// The name is for people and for programs that go by its ending.
	name := path.Base(target.Path)
	if checkSegment(name) != nil || strings.HasPrefix(name, ".") || name == "/" {
		name = "content"
	}
	sum := sha256.Sum256([]byte(uri))
	return path.Join(webFolder, hex.EncodeToString(sum[:16]), name), nil
}

func checkNamespace(namespace string) error {
	if err := checkSegment(namespace); err != nil {
		return fmt.Errorf("namespace %.80q: %w", namespace, err)
	}
	if strings.HasPrefix(namespace, ".") {
		return fmt.Errorf("namespace %q must not begin with a dot: %w", namespace, ErrInvalid)
	}
	return nil
}

// checkSegment refuses names that mean something to a file system or a decoder.
func checkSegment(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("an empty path segment: %w", ErrInvalid)
	case s == "." || s == "..":
		return fmt.Errorf("the path segment %q: %w", s, ErrInvalid)
	case len(s) > maxSegment:
		return fmt.Errorf("a path segment of %d bytes is longer than %d: %w", len(s), maxSegment, ErrInvalid)
	case !utf8.ValidString(s):
		return fmt.Errorf("the path segment %q is not UTF-8: %w", s, ErrInvalid)
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c == '/' || c == '\\' || c < 0x20 || c == 0x7f:
			return fmt.Errorf("the path segment %q has the character %q: %w", s, c, ErrInvalid)
		case c == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			return fmt.Errorf("the path segment %q is percent-encoded: %w", s, ErrInvalid)
		}
	}
	return nil
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// subSegments splits a path inside an artifact; empty for the artifact itself.
func subSegments(subpath string) ([]string, error) {
	subpath = strings.Trim(subpath, "/")
	if subpath == "" {
		return nil, nil
	}
	if len(subpath) > maxKey {
		return nil, fmt.Errorf("path of %d bytes: %w", len(subpath), ErrInvalid)
	}
	segments := strings.Split(subpath, "/")
	for _, s := range segments {
		// Unlike a URI, a file's name may be anything that a file system takes.
		if s == "" || s == "." || s == ".." || len(s) > maxSegment || strings.IndexByte(s, 0) >= 0 {
			return nil, fmt.Errorf("path %q: %w", subpath, ErrInvalid)
		}
	}
	return segments, nil
}
