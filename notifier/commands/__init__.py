"""An operator's commands, a module for each thing they speak of; `notifier.cli` puts them under one name."""
