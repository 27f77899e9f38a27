package kfp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/skiff-ml/skiff/api/problem"
)

// maxDocuments is the pipeline, its platform settings, and room for documents
// that are empty (a trailing "---").
const maxDocuments = 8

// parseDocuments reads the documents of a text that hold something.
func parseDocuments(file string, data []byte, limits Limits) ([]*yaml.Node, error) {
	data, err := checkText(file, data)
	if err != nil {
		return nil, err
	}
	if count := structure(data); count > limits.MaxNodes {
		return nil, refusal(file, "split the pipeline into smaller ones", "the document may hold %d values, at most %d are read", count, limits.MaxNodes)
	}
	if trimmed := bytes.TrimLeft(data, " \t\r\n"); len(trimmed) > 0 && trimmed[0] == '{' {
		root, err := parseJSON(data, limits)
		if err == nil {
			return []*yaml.Node{root}, nil
		}
		if strings.HasSuffix(strings.ToLower(file), ".json") {
			return nil, syntaxProblem(file, err)
		}
		// A mapping in YAML's flow style may begin like JSON.
	}
	return parseYAML(file, data)
}

// structure counts the characters without which YAML and JSON can hold no
// further value: an upper bound of the values, known before any is parsed.
func structure(data []byte) int {
	count := 0
	for _, c := range data {
		switch c {
		case ',', ':', '-', '[', '{', '?':
			count++
		}
	}
	return count
}

func parseYAML(file string, data []byte) ([]*yaml.Node, error) {
	var documents []*yaml.Node
	reader := yaml.NewDecoder(bytes.NewReader(data))
	for count := 0; ; count++ {
		var document yaml.Node
		err := reader.Decode(&document)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, syntaxProblem(file, err)
		}
		if count == maxDocuments {
			return nil, refusal(file, "give each pipeline as a file of its own", "more than %d documents; a package has one or two", maxDocuments)
		}
		if len(document.Content) == 1 && !isNull(document.Content[0]) {
			documents = append(documents, document.Content[0])
		}
	}
	switch {
	case len(documents) == 0:
		return nil, refusal(file, "give the file that the KFP compiler wrote", "the file is empty: it holds no pipeline")
	case len(documents) > 2:
		return nil, refusal(file, "give each pipeline as a file of its own", "%d documents; a package has one or two", len(documents))
	}
	return documents, nil
}

var yamlLine = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+)(?:, column \d+)?: )?(.*)$`)

// syntaxProblem is a parser's complaint with its line where the others have theirs.
func syntaxProblem(file string, err error) problem.List {
	p := &problem.Error{Object: file, Err: err}
	if at, isJSON := errors.AsType[*jsonError](err); isJSON {
		p.Line, p.Err = at.line, at.err
		p.Hint = "the file is not valid JSON"
		return problem.List{p}
	}
	if match := yamlLine.FindStringSubmatch(strings.TrimSpace(err.Error())); match != nil {
		if line, convErr := strconv.Atoi(match[1]); convErr == nil {
			p.Line = line
		}
		p.Err = errors.New(match[2])
	}
	p.Hint = "the file is not valid YAML"
	return problem.List{p}
}

// jsonError is a complaint about JSON at a line.
type jsonError struct {
	line int
	err  error
}

func (e *jsonError) Error() string { return fmt.Sprintf("line %d: %v", e.line, e.err) }
func (e *jsonError) Unwrap() error { return e.err }

// jsonReader makes nodes of JSON. YAML's parser would do for most of it, but
// refuses tabs and the escapes of characters beyond the basic plane.
type jsonReader struct {
	data     []byte
	tokens   *json.Decoder
	maxDepth int
	// line is that of offset.
	line   int
	offset int64
}

func parseJSON(data []byte, limits Limits) (*yaml.Node, error) {
	r := &jsonReader{data: data, tokens: json.NewDecoder(bytes.NewReader(data)), line: 1, maxDepth: limits.MaxDepth}
	r.tokens.UseNumber()
	root, err := r.value(1)
	if err == nil {
		if _, more := r.tokens.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows the end of the document")
		}
	}
	if err != nil {
		r.seek()
		return nil, &jsonError{line: r.line, err: err}
	}
	return root, nil
}

// seek moves line to where the reader stands.
func (r *jsonReader) seek() {
	end := min(r.tokens.InputOffset(), int64(len(r.data)))
	r.line += bytes.Count(r.data[r.offset:end], []byte("\n"))
	r.offset = end
}

func (r *jsonReader) value(depth int) (*yaml.Node, error) {
	if depth > r.maxDepth+1 {
		return nil, fmt.Errorf("nested more than %d levels deep", r.maxDepth)
	}
	token, err := r.tokens.Token()
	if err != nil {
		return nil, endsEarly(err)
	}
	r.seek()
	node := &yaml.Node{Kind: yaml.ScalarNode, Line: r.line}
	switch t := token.(type) {
	case json.Delim:
		return r.composite(node, t, depth)
	case string:
		node.Tag, node.Value = "!!str", t
	case json.Number:
		node.Tag, node.Value = "!!float", t.String()
	case bool:
		node.Tag, node.Value = "!!bool", strconv.FormatBool(t)
	default:
		node.Tag, node.Value = "!!null", "null"
	}
	return node, nil
}

func (r *jsonReader) composite(node *yaml.Node, open json.Delim, depth int) (*yaml.Node, error) {
	node.Kind, node.Tag = yaml.SequenceNode, "!!seq"
	if open == '{' {
		node.Kind, node.Tag = yaml.MappingNode, "!!map"
	}
	for r.tokens.More() {
		child, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		node.Content = append(node.Content, child)
	}
	if _, err := r.tokens.Token(); err != nil { // the closing bracket
		return nil, endsEarly(err)
	}
	return node, nil
}

// endsEarly says in words what the decoder says with io.EOF.
func endsEarly(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the document ends in the middle")
	}
	return err
}
