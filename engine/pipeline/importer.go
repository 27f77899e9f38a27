package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pipeline/expr"
	"github.com/skiff-ml/skiff/store"
)

// startImporter makes an artifact object for something that exists elsewhere.
// No container is needed and, unless they are copied into the run's workspace,
// the contents are not looked at: that they are there is up to whoever reads
// them, as on the cluster.
func (x *execution) startImporter(ctx context.Context, n *node) {
	spec := x.ir.DeploymentSpec.Executors[n.component.ExecutorLabel].Importer
	a, err := x.imported(n, spec)
	if err != nil {
		x.fail(n, reasonInputs, err)
		return
	}
	x.hold("", a.Spec.URI) // before it is looked at whether there was an import of it
	x.begun(n)
	n.outputs = values{}
	past, err := x.importedBefore(ctx, n, a)
	if err != nil {
		x.fail(n, reasonInternalFault, err)
		return
	}
	if past != nil {
		a = past
	} else if !spec.Reimport {
		known, err := x.knownImport(ctx, a)
		if err != nil {
			x.fail(n, reasonInternalFault, err)
			return
		}
		if known != nil {
			a = known
		}
	}
	if spec.DownloadToWorkspace {
		x.download(ctx, n, a, spec.Reimport)
		return
	}
	x.takeImport(ctx, n, a)
}

// takeImport settles an importer with its artifact.
func (x *execution) takeImport(ctx context.Context, n *node, a *skiff.Artifact) {
	switch {
	case a.UID != "":
		x.c.usedLater(x.run.Name, []*skiff.Artifact{a})
	case x.artifacts[a.Name] == nil:
		x.newArtifacts = append(x.newArtifacts, a)
	}
	x.take(a)
	x.usedByImport(ctx, a)
	n.results = artifactMap{a.Spec.Output: {items: []*skiff.Artifact{a}}}
	for output := range n.component.OutputDefinitions.Artifacts {
		n.results[output] = artifactList{items: []*skiff.Artifact{a}}
	}
	x.settle(n, skiff.StateSucceeded, "", "")
}

// imported is the artifact that an importer describes.
func (x *execution) imported(n *node, spec *kfp.ImporterSpec) (*skiff.Artifact, error) {
	context := x.exprContext(n, &kfp.ExecutorInput{Inputs: kfp.ExecutorInputs{ParameterValues: n.inputs.params}})
	uri, err := x.importURI(n, spec, context)
	if err != nil {
		return nil, fmt.Errorf("importer: artifactUri: %w", err)
	}
	resolved, err := expr.ResolveValue(spec.Metadata, context)
	if err != nil {
		return nil, fmt.Errorf("importer: metadata: %w", err)
	}
	var metadata map[string]json.RawMessage
	if m, isMap := resolved.(map[string]any); isMap {
		metadata = metadataOf(m)
		delete(metadata, workspaceMark) // said by the importer's own setting alone
	}
	output := "artifact"
	for name := range n.component.OutputDefinitions.Artifacts {
		output = name
	}
	return &skiff.Artifact{
		TypeMeta: core.TypeMeta{APIVersion: skiff.APIVersion, Kind: skiff.ArtifactKind},
		ObjectMeta: core.ObjectMeta{
			Name:      fmt.Sprintf("%s-%s", n.task.Name, shortHash(uri+importRound(n))),
			Namespace: x.run.Namespace,
			Labels:    map[string]string{core.LabelRun: x.run.Name, core.LabelTask: labelValue(n.path)},
		},
		Spec: skiff.ArtifactSpec{
			DisplayName: output, SchemaTitle: spec.TypeSchema.SchemaTitle, SchemaVersion: spec.TypeSchema.SchemaVersion,
			InstanceSchema: spec.TypeSchema.InstanceSchema, URI: uri, Metadata: metadata,
			Run: x.run.Name, Task: n.task.Name, Output: output, Imported: true,
			Workspace: spec.DownloadToWorkspace,
		},
	}, nil
}

func (x *execution) importURI(n *node, spec *kfp.ImporterSpec, context *expr.Context) (string, error) {
	value := spec.ArtifactURI.Constant
	if name := spec.ArtifactURI.RuntimeParameter; name != "" {
		value = n.inputs.params[name]
	}
	text, isText := value.(string)
	if !isText || text == "" {
		return "", fmt.Errorf("want a URI, got %v", value)
	}
	return expr.ResolveString(text, context)
}

// knownImport finds an earlier import of the same thing: same URI, same type,
// same metadata, and copied into workspaces or not.
func (x *execution) knownImport(ctx context.Context, a *skiff.Artifact) (*skiff.Artifact, error) {
	page, err := x.c.store.List(ctx, store.ListOptions{
		Kind: Artifacts, Namespace: x.run.Namespace, Index: indexURI, Prefix: a.Spec.URI + separator + a.Spec.SchemaTitle, Exact: true, Limit: 100,
	})
	if err != nil {
		return nil, fmt.Errorf("look for an earlier import: %w", err)
	}
	for _, obj := range page.Items {
		known := obj.(*skiff.Artifact)
		if known.Gone() != "" {
			continue
		}
		if known.Spec.Workspace == a.Spec.Workspace && len(known.Spec.Metadata) == len(a.Spec.Metadata) && (len(a.Spec.Metadata) == 0 || reflect.DeepEqual(known.Spec.Metadata, a.Spec.Metadata)) {
			return known, nil
		}
	}
	return nil, nil
}

// importRound tells what an importer makes after a retry of the run from what it
// made before.
func importRound(n *node) string {
	if n.task.Status.Attempts == 0 {
		return ""
	}
	return separator + strconv.Itoa(n.task.Status.Attempts)
}
