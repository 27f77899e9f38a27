package skiff

import (
	"github.com/google/uuid"

	"github.com/skiff-ml/skiff/api/core"
)

// Experiment is a group of runs, as in KFP. Its name is KFP's experiment_id.
type Experiment struct {
	core.TypeMeta
	core.ObjectMeta `json:"metadata"`
	Spec            ExperimentSpec `json:"spec"`
}

// ExperimentSpec is what a person said of an experiment.
type ExperimentSpec struct {
	// DisplayName is unique in the namespace.
	DisplayName string `json:"displayName"`
	Description string `json:"description,omitempty"`
	// Archived puts the experiment away; its runs are archived with it and its
	// recurring runs disabled, in the transactions before.
	Archived bool `json:"archived,omitempty"`
}

// DefaultExperimentName is the display name of the experiment of runs that name
// none, as in KFP.
const DefaultExperimentName = "Default"

// DefaultExperiment is the name (KFP's experiment_id) of a namespace's default
// experiment. It is derived, so that whoever makes the object first makes the
// same one.
func DefaultExperiment(namespace string) string {
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte(APIVersion+"/"+namespace+"/experiments/default")).String()
}

// NewDefaultExperiment is a namespace's default experiment as it is created.
func NewDefaultExperiment(namespace string) *Experiment {
	return &Experiment{
		TypeMeta:   core.TypeMeta{APIVersion: APIVersion, Kind: ExperimentKind},
		ObjectMeta: core.ObjectMeta{Name: DefaultExperiment(namespace), Namespace: namespace},
		Spec:       ExperimentSpec{DisplayName: DefaultExperimentName, Description: "Runs that name no experiment."},
	}
}

// ExperimentOf is the experiment of a run.
func ExperimentOf(run *Run) string {
	if run.Spec.Experiment == "" {
		return DefaultExperiment(run.Namespace)
	}
	return run.Spec.Experiment
}
