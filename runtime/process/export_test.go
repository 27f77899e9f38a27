package process

import (
	"context"
	"encoding/json"
	"os"

	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/host"
)

// LauncherPID asks which process a container's launcher is.
func LauncherPID(ctx context.Context, dir string) (int, error) {
	var s saved
	data, err := os.ReadFile(dir + specSuffix)
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		return 0, err
	}
	conn, err := host.New().Connect(ctx, launch.ControlDir(s.Spec.PodDir, s.Spec.Container))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	return conn.PID(), nil
}
