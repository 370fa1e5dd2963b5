//! The few of Apache's command line tools that the suite calls, laid out as in Kafka's release.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::Result;

use crate::kafka::Jars;

/// Each script and the class that it runs; `kafka-run-class.sh` is told which.
const SCRIPTS: [(&str, &str); 2] = [
    ("kafka-topics.sh", "org.apache.kafka.tools.TopicCommand"),
    ("kafka-run-class.sh", ""),
];

/// Makes `folder` what the suite takes for Kafka's own (`KAFKA_PATH`).
pub(super) fn lay_out(folder: &Path, jars: &Jars) -> Result<()> {
    let bin = folder.join("bin");
    std::fs::create_dir_all(&bin)?;
    let class_path = jars.class_path();
    for (name, class) in SCRIPTS {
        let script = bin.join(name);
        let text = format!(
            "#!/bin/sh\nexec java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
             -cp \"$CLASSPATH:{class_path}\" {class} \"$@\"\n"
        );
        std::fs::write(&script, text)?;
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    }
    let libs = folder.join("libs");
    if !libs.exists() {
        symlink(class_path.trim_end_matches("/*"), libs)?;
    }
    Ok(())
}
