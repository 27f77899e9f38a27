package store

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// KeyFile is the data key of sealed kinds, beside the store's file.
const KeyFile = "secrets.key"

const (
	// keyBytes make it AES-256.
	keyBytes = 32
	// keyHeader begins the key file, so that people and scanners of leaked
	// secrets know what it is.
	keyHeader = "skiff-secrets-key-v1:"
	// keyIDLabel is what the key's id is the MAC of.
	keyIDLabel = "skiff secrets key id"
)

// sealer seals the objects of sealed kinds: what lies in the file, the change
// log, backups and the ring of changes is the sealed form alone.
//
// The sealed form is a JSON object of its own,
//
//	{"metadata":{…what replacing an object needs of it…},"sealed":"base64"}
//
// so that whatever only walks the file needs no key. Sealed is the AES-256-GCM
// of the whole object's JSON, under a random nonce that stands before it; the
// object's kind, namespace, name and uid are authenticated with it, so a value
// that is moved to another object does not open.
type sealer struct {
	aead cipher.AEAD
	// id tells keys apart and gives nothing of them away.
	id string
}

// sealedObject is the sealed form.
type sealedObject struct {
	Metadata oldMeta `json:"metadata"`
	Sealed   []byte  `json:"sealed"`
}

func newSealer(key []byte) (*sealer, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(keyIDLabel))
	return &sealer{aead: aead, id: hex.EncodeToString(mac.Sum(nil)[:8])}, nil
}

func sealedWith(key Key, uid string) []byte { return []byte(key.raw() + "\x00" + uid) }

// seal makes the sealed form of an object's JSON.
func (s *sealer) seal(key Key, plain []byte) ([]byte, error) {
	meta, err := record{json: plain}.meta(key)
	if err != nil {
		return nil, err
	}
	sealed := s.aead.Seal(nil, nil, plain, sealedWith(key, meta.UID))
	out, err := json.Marshal(sealedObject{Metadata: meta, Sealed: sealed})
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", key, err)
	}
	return out, nil
}

// open is the inverse of seal; ErrKey where the key is not the one that sealed,
// or the value was tampered with.
func (s *sealer) open(key Key, data []byte) ([]byte, error) {
	var object sealedObject
	if err := json.Unmarshal(data, &object); err != nil {
		return nil, corrupt(key.raw(), "the sealed form: %v", err)
	}
	plain, err := s.aead.Open(nil, nil, object.Sealed, sealedWith(key, object.Metadata.UID))
	if err != nil {
		return nil, fmt.Errorf("read %s: it does not open with key %s: %w", key, s.id, ErrKey)
	}
	return plain, nil
}

// toFile is an object's JSON as it goes into the file.
func (k *kindInfo) toFile(key Key, plain []byte) ([]byte, error) {
	if !k.Sealed {
		return plain, nil
	}
	return k.sealer.seal(key, plain)
}

// fromFile is the inverse of toFile.
func (k *kindInfo) fromFile(key Key, data []byte) ([]byte, error) {
	if !k.Sealed {
		return data, nil
	}
	return k.sealer.open(key, data)
}

// openKey gives the sealed kinds their key: the one in the key file, or a new
// one where nothing is sealed. A key that is missing, or is not the one that the
// objects in the store were sealed with, is ErrKey, and nothing is changed.
func (s *Store) openKey() error {
	var sealed []*kindInfo
	for _, kind := range s.kinds {
		if kind.Sealed {
			sealed = append(sealed, kind)
		}
	}
	if len(sealed) == 0 {
		return nil
	}
	path, noted, found := s.cfg.KeyPath, "", false
	if err := guard(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			noted = string(tx.Bucket(bucketMeta()).Get([]byte(metaKey)))
			for _, kind := range sealed {
				found = found || hasKind(tx.Bucket(bucketObjects()), kind.Name)
			}
			return nil
		})
	}); err != nil {
		return err
	}
	if found {
		if err := fits(path, noted); err != nil {
			return fmt.Errorf("%w (where the file is lost, \"skiff restore --without-secrets %s\" gives the secrets up and keeps all else)", err, s.cfg.Path)
		}
	}
	key, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = makeKey(path)
	}
	if err != nil {
		return fmt.Errorf("open the key of the secrets: %w", err)
	}
	with, err := newSealer(key)
	if err != nil {
		return fmt.Errorf("open the key of the secrets: %w", err)
	}
	for _, kind := range sealed {
		kind.sealer = with
	}
	if noted == with.id {
		return nil
	}
	return guard(func() error {
		return s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta()).Put([]byte(metaKey), []byte(with.id)) })
	})
}

// fits refuses a key file that is not the one whose id was noted.
func fits(path, noted string) error {
	key, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing, and the secrets were sealed with it (key %s); put the file back: %w", path, noted, ErrKey)
	}
	if err != nil {
		return fmt.Errorf("open the key of the secrets: %w", err)
	}
	with, err := newSealer(key)
	if err != nil {
		return fmt.Errorf("open the key of the secrets: %w", err)
	}
	if with.id != noted {
		return fmt.Errorf("%s holds key %s, but the secrets were sealed with key %s; put that file back: %w", path, with.id, noted, ErrKey)
	}
	return nil
}

func hasKind(objects *bolt.Bucket, name string) bool {
	prefix := append([]byte(name), 0)
	row, _ := objects.Cursor().Seek(prefix)
	return bytes.HasPrefix(row, prefix)
}

// settleSealed makes sure that the sealed objects of a backup can be opened, or
// leaves them out.
func settleSealed(b buckets, cfg RestoreConfig) error {
	for _, kind := range cfg.Kinds {
		if !kind.Sealed || !hasKind(b.objects, kind.Name) {
			continue
		}
		if !cfg.WithoutSealed {
			return fits(cfg.KeyPath, string(b.meta.Get([]byte(metaKey))))
		}
		prefix := append([]byte(kind.Name), 0)
		var rows [][]byte
		cursor := b.objects.Cursor()
		for row, _ := cursor.Seek(prefix); bytes.HasPrefix(row, prefix); row, _ = cursor.Next() {
			rows = append(rows, bytes.Clone(row))
		}
		for _, row := range rows {
			if err := b.objects.Delete(row); err != nil {
				return fmt.Errorf("leave %q out: %w", row, err)
			}
		}
	}
	return nil
}

// readKey reads a key file. One that others could read is refused: it is no
// secret any more.
func readKey(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %v, want a file that only its owner can read (chmod 600 %s): %w", path, info.Mode(), path, ErrKey)
	}
	// Twice what a key takes, so that a longer file is noticed.
	text, err := io.ReadAll(io.LimitReader(file, 256))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	encoded, ok := strings.CutPrefix(strings.TrimSpace(string(text)), keyHeader)
	key, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || len(key) != keyBytes {
		// The decoder's own words would quote the key.
		return nil, fmt.Errorf("%s holds no key; put the file back that skiff wrote: %w", path, ErrKey)
	}
	return key, nil
}

// makeKey writes a new key, durable before anything is sealed with it, and
// never over a file that is there.
func makeKey(path string) ([]byte, error) {
	key := make([]byte, keyBytes)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	staged := fmt.Sprintf("%s.new-%d", path, os.Getpid())
	err := writeFileDurably(staged, func(f *os.File) error {
		_, err := fmt.Fprintf(f, "%s%s\n", keyHeader, base64.StdEncoding.EncodeToString(key))
		return err
	})
	if err == nil {
		err = os.Link(staged, path)
	}
	if err = errors.Join(err, removeIfThere(staged)); err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return key, syncDir(filepath.Dir(path))
}
