package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/skiff-ml/skiff/api/core"
)

// dataSources are the flags that give keys and values.
type dataSources struct{ literals, files, envFiles []string }

// read collects all keys; one that is given twice is refused. Values are part of
// no error.
func (d *dataSources) read(in io.Reader) (map[string][]byte, error) {
	data := map[string][]byte{}
	add := func(key string, value []byte) error {
		if !core.IsDataKey(key) {
			return refuse(fmt.Errorf("key %q: want letters, digits, '-', '_' and '.'", key))
		}
		if _, twice := data[key]; twice {
			return refuse(fmt.Errorf("key %q is given twice", key))
		}
		data[key] = value
		return nil
	}
	for _, literal := range d.literals {
		key, value, ok := strings.Cut(literal, "=")
		if !ok {
			// What was typed may be the value.
			return nil, refuse(errors.New("--from-literal: want KEY=VALUE"))
		}
		if err := add(key, []byte(value)); err != nil {
			return nil, err
		}
	}
	for _, file := range d.files {
		if err := addFiles(file, in, add); err != nil {
			return nil, err
		}
	}
	for _, file := range d.envFiles {
		if err := addEnvFile(file, add); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// addFiles adds a file under its own name or the key given, or the files of a
// folder under their names.
func addFiles(source string, in io.Reader, add func(string, []byte) error) error {
	key, path, named := strings.Cut(source, "=")
	if !named {
		key, path = filepath.Base(source), source
	}
	if path == "-" {
		if !named {
			return refuse(errors.New("--from-file -: give the key, as in KEY=-"))
		}
		value, err := readAtMost(in, "the input", core.MaxDataBytes)
		if err != nil {
			return err
		}
		return add(key, value)
	}
	info, err := os.Stat(path)
	if err != nil {
		return refuse(fmt.Errorf("--from-file: %w", err))
	}
	if !info.IsDir() {
		value, err := readFileAtMost(path)
		if err != nil {
			return err
		}
		return add(key, value)
	}
	if named {
		return refuse(fmt.Errorf("--from-file %s: is a folder; its files have keys of their own, so give none", source))
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return refuse(fmt.Errorf("--from-file: %w", err))
	}
	for _, entry := range entries {
		if !entry.Type().IsRegular() || !core.IsDataKey(entry.Name()) {
			continue
		}
		value, err := readFileAtMost(filepath.Join(path, entry.Name()))
		if err != nil {
			return err
		}
		if err := add(entry.Name(), value); err != nil {
			return err
		}
	}
	return nil
}

// addEnvFile adds the lines of a file: KEY=VALUE as they are, KEY alone with the
// value that this command's environment has; empty lines and those that begin
// with # are passed over.
func addEnvFile(path string, add func(string, []byte) error) error {
	text, err := readFileAtMost(path)
	if err != nil {
		return err
	}
	number := 0
	for line := range strings.Lines(strings.TrimPrefix(string(text), "\ufeff")) {
		number++
		line = strings.TrimLeft(strings.TrimRight(line, "\r\n"), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, given := strings.Cut(line, "=")
		if !given {
			if value, given = os.LookupEnv(key); !given {
				return refuse(fmt.Errorf("%s:%d: want KEY=VALUE, or the name of a variable that is set", path, number))
			}
		}
		if err := add(key, []byte(value)); err != nil {
			return fmt.Errorf("%s:%d: %w", path, number, err)
		}
	}
	return nil
}

func readFileAtMost(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, refuse(err)
	}
	defer func() { _ = file.Close() }()
	return readAtMost(file, path, core.MaxDataBytes)
}

func readAtMost(in io.Reader, name string, limit int64) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err != nil {
		return nil, refuse(fmt.Errorf("read %s: %w", name, err))
	}
	if int64(len(content)) > limit {
		return nil, refuse(fmt.Errorf("%s is larger than the %d bytes allowed", name, limit))
	}
	return content, nil
}
