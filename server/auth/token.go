package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// TokenFile is the administrator's token below the state folder.
const TokenFile = "admin.token"

// tokenPrefix tells people and secret scanners what a leaked string is.
const tokenPrefix = "skf_"

// tokenBytes are 256 bits: nothing to guess, so a fast hash is enough.
const tokenBytes = 32

// EnsureAdminToken returns the administrator's token of a state folder, made on
// the first call. The file is readable by its owner alone and appears whole or
// not at all, so that two processes that start at once agree on one token.
func EnsureAdminToken(stateDir string) (string, error) {
	token, err := ReadAdminToken(stateDir)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return token, err
	}
	secret := make([]byte, tokenBytes)
	if _, err := rand.Read(secret); err != nil {
		return "", fmt.Errorf("make the administrator's token: %w", err)
	}
	token = tokenPrefix + base64.RawURLEncoding.EncodeToString(secret)
	if err := writeOnce(filepath.Join(stateDir, TokenFile), []byte(token+"\n")); err != nil {
		return "", fmt.Errorf("write the administrator's token: %w", err)
	}
	return ReadAdminToken(stateDir)
}

// ReadAdminToken reads the token of a state folder. A file that others could
// read is refused: the token in it is no secret any more.
func ReadAdminToken(stateDir string) (string, error) {
	path := filepath.Join(stateDir, TokenFile)
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read the administrator's token: %w", err)
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return "", fmt.Errorf("read the administrator's token: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s has mode %v, want a file that only its owner can read; "+
			"delete it and restart skiff to have a new token made", path, info.Mode())
	}
	// One byte more than any token, so that a longer file is noticed.
	content := make([]byte, 257)
	n, err := file.Read(content)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	token := strings.TrimSpace(string(content[:n]))
	if token == "" || n == len(content) {
		return "", fmt.Errorf("%s holds no token; delete it and restart skiff to have a new one made", path)
	}
	return token, nil
}

// writeOnce makes a file that did not exist, through a temporary one and a hard
// link: the link fails where another process was first, and that one's stays.
func writeOnce(path string, content []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }()
	// CreateTemp makes the file 0600.
	if _, err = temp.Write(content); err == nil {
		err = temp.Sync()
	}
	if closeErr := temp.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	if err := os.Link(temp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// tokenHash is what is kept of a token in memory and compared, in constant time.
type tokenHash [sha256.Size]byte

func hashToken(token string) tokenHash { return sha256.Sum256([]byte(token)) }

func (h tokenHash) matches(token string) bool {
	other := hashToken(token)
	return subtle.ConstantTimeCompare(h[:], other[:]) == 1
}
