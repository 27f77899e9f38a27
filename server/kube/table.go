package kube

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/server/view"
)

// Table is the published shape of a list made for people (meta.k8s.io/v1).
type Table struct {
	Kind              string     `json:"kind"`
	APIVersion        string     `json:"apiVersion"`
	Metadata          ListMeta   `json:"metadata"`
	ColumnDefinitions []TableCol `json:"columnDefinitions"`
	Rows              []TableRow `json:"rows"`
}

// TableCol describes a column.
type TableCol struct {
	Name        string `json:"name"`
	Type        string `json:"type"`
	Format      string `json:"format"`
	Description string `json:"description"`
	// Priority above 0 is shown by -o wide alone.
	Priority int `json:"priority"`
}

// TableRow is one object.
type TableRow struct {
	Cells []any `json:"cells"`
	// Object is the object, or only its metadata.
	Object json.RawMessage `json:"object,omitempty"`
}

// ListMeta is the metadata of a list.
type ListMeta struct {
	ResourceVersion string `json:"resourceVersion,omitempty"`
	Continue        string `json:"continue,omitempty"`
}

func nameColumn() Column {
	return Column{Name: "Name", Type: "string", Description: "the object's name, unique in its namespace",
		Value: func(o core.Object, _ time.Time) any { return o.Metadata().Name }}
}

func ageColumn() Column {
	return Column{Name: "Age", Type: "string", Description: "time since the object was made",
		Value: func(o core.Object, now time.Time) any {
			return elapsed(o.Metadata().CreationTimestamp, time.Time{}, now)
		}}
}

// wantsTable reads the Accept header's request for a Table.
func wantsTable(accept string) bool {
	return strings.Contains(accept, "as=Table") && strings.Contains(accept, "g=meta.k8s.io")
}

// tableOf renders objects; include is the request's includeObject.
func (r *Resource) tableOf(objects []core.Object, include string, now time.Time) (*Table, error) {
	table := &Table{Kind: "Table", APIVersion: "meta.k8s.io/v1", Rows: make([]TableRow, 0, len(objects))}
	for _, c := range r.Columns {
		definition := TableCol{Name: c.Name, Type: c.Type, Description: c.Description}
		if c.Name == nameColumn().Name {
			definition.Format = "name"
		}
		if c.Wide {
			definition.Priority = 1
		}
		table.ColumnDefinitions = append(table.ColumnDefinitions, definition)
	}
	for _, obj := range objects {
		row := TableRow{Cells: make([]any, 0, len(r.Columns))}
		for _, c := range r.Columns {
			row.Cells = append(row.Cells, c.Value(obj, now))
		}
		if r.Shown != nil {
			obj = r.Shown(obj)
		}
		var err error
		switch include {
		case "None":
		case "Object":
			row.Object, err = r.encode(obj)
		default:
			row.Object, err = json.Marshal(struct {
				core.TypeMeta
				Metadata *core.ObjectMeta `json:"metadata"`
			}{core.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadata"}, obj.Metadata()})
		}
		if err != nil {
			return nil, fmt.Errorf("encode %s %s: %w", r.Singular, obj.Metadata().Name, err)
		}
		table.Rows = append(table.Rows, row)
	}
	return table, nil
}

// elapsed is the time from start to end, or to now where there is no end, in
// the short form people compare at a glance; empty where there is no start.
func elapsed(start, end, now time.Time) string {
	if start.IsZero() {
		return ""
	}
	if end.IsZero() {
		end = now
	}
	return view.Duration(end.Sub(start))
}
