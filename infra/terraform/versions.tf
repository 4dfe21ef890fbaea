terraform {
  required_version = ">= 1.6" # OpenTofu too

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = { project = "llmsrec" }
  }
}
